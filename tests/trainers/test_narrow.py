"""Joined passes of short rows: the loss of a step stays what it is, for every loss that TRL knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig

from rlt.trainers.narrow import NarrowPasses

LOSSES = ("grpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")
"""All but bnpo, which averages over the tokens of a pass, so that passes are not joined."""
LENGTHS = (6, 5, 5, 4)
PROMPT = 100


@pytest.fixture(scope="module")
def trainer(tiny_teacher: Path, tmp_path_factory) -> NarrowPasses:
    """Return TRL's trainer with our passes, in the middle of a step of four micro-batches of one row."""
    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("narrow")),
        use_cpu=True,
        bf16=False,
        report_to="none",
        beta=0.04,
        num_generations=4,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        max_completion_length=8,
    )
    trainer = NarrowPasses(
        str(tiny_teacher),
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 4}),
        processing_class=AutoTokenizer.from_pretrained(tiny_teacher),
    )
    trainer.current_gradient_accumulation_steps = 4
    assert trainer.model is not None
    trainer.model.eval()  # without dropout; the loss is distinguished below
    return trainer


def step() -> list[dict[str, torch.Tensor]]:
    """Return a step's micro-batches as TRL slices them."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[i < n for i in range(max(LENGTHS))] for n in LENGTHS]).long()
    whole = {
        "prompt_ids": torch.randint(10, 60, (4, PROMPT), generator=generator),
        "prompt_mask": torch.ones(4, PROMPT, dtype=torch.long),
        "completion_ids": torch.randint(10, 60, mask.shape, generator=generator),
        "completion_mask": mask,
        "ref_per_token_logps": -3 * torch.rand(mask.shape, generator=generator) * mask,
        "old_per_token_logps": -3 * torch.rand(mask.shape, generator=generator) * mask,
        "advantages": torch.tensor([1.5, -0.5, 0.25, -1.0]),
    }
    total = torch.tensor(sum(LENGTHS))
    return [
        {**{name: value[i : i + 1] for name, value in whole.items()}, "num_items_in_batch": total}
        for i in range(4)
    ]


def loss_of(trainer: NarrowPasses, joined_tokens: int) -> tuple[torch.Tensor, list[int]]:
    """Return the loss of a step, and the rows of each of its passes."""
    trainer.joined_tokens = joined_tokens
    batches = trainer._narrow(step())
    model = trainer.model
    assert model is not None
    model.training = True  # the outermost module alone: the loss asks it
    try:
        losses = [trainer._compute_loss(model, batch) for batch in batches if batch]
    finally:
        model.training = False
    return torch.stack(losses).sum(), [len(batch["advantages"]) if batch else 0 for batch in batches]


@pytest.mark.parametrize("loss_type", LOSSES)
def test_joined_passes_have_the_loss_of_single_rows(trainer, loss_type, monkeypatch):
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    apart, one_by_one = loss_of(trainer, 0)
    joined, in_pairs = loss_of(trainer, 10_000)
    assert (one_by_one, in_pairs) == ([1, 1, 1, 1], [1, 0, 0, 3])
    assert joined.item() == pytest.approx(apart.item(), rel=1e-5)
    assert abs(apart.item()) > 1e-3


def test_where_the_loss_averages_over_a_pass_none_are_joined(trainer, monkeypatch):
    monkeypatch.setattr(trainer, "loss_type", "bnpo")
    assert loss_of(trainer, 10_000)[1] == [1, 1, 1, 1]


def test_a_pass_whose_rows_have_joined_others_is_skipped(trainer, monkeypatch):
    trainer.joined_tokens = 10_000
    monkeypatch.setattr(trainer, "_buffered_inputs", trainer._narrow(step()))
    monkeypatch.setattr(trainer, "_step", 1)
    assert trainer.training_step(trainer.model, {}, None).item() == 0.0
    assert trainer._step == 2
