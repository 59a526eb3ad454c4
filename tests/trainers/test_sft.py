"""An optimizer step of fine-tuning: no padding that nobody needs, and the numbers of the padded step.

The padded step is computed here from the rows alone: all of them in one batch, in a plain model.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from rlt.config.compose import compose
from rlt.trainers.arguments import RunContext, sft_arguments
from rlt.trainers.order import Places, all_of
from rlt.trainers.own_loss import LossHead
from rlt.trainers.sft import IGNORED, FineTuner, Row, SFTData, make_sft_trainer

NUM_ROWS, LIMIT = 64, 128


def long_tailed_rows(num_rows: int = NUM_ROWS) -> list[Row]:
    """Return rows with lognormal lengths (sigma 1, mean a quarter of the limit), one of them at the limit."""
    draw = random.Random(5)
    drawn = [draw.lognormvariate(math.log(LIMIT / 4) - 0.5, 1) for _ in range(num_rows - 1)]
    lengths = [LIMIT, *(min(LIMIT, max(4, round(length))) for length in drawn)]
    draw.shuffle(lengths)
    rows = []
    for length in lengths:
        ids = [draw.randrange(300) for _ in range(length)]
        num_prompt = draw.randrange(1, length - 1)
        rows.append({"input_ids": ids, "labels": [IGNORED] * num_prompt + ids[num_prompt:]})
    return rows


class Recorder(TrainerCallback):
    """Keeps what the passes of each optimizer step compute, and the gradient that the optimizer gets."""

    def __init__(self, trainer: FineTuner) -> None:
        self.passes: list[tuple[tuple[int, ...], int]] = []
        """Shape and real tokens of each forward pass."""
        self.loss = 0.0
        self.gradients: dict[str, Tensor] = {}
        self._model: Any = trainer.model
        self._model.model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._train = trainer.training_step
        trainer.training_step = self._add_loss  # pyright: ignore[reportAttributeAccessIssue]

    def _add_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = self._train(*args, **kwargs)
        self.loss += loss.item()  # transformers adds losses up in float32
        return loss

    def _count(self, _: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("attention_mask") is not None:  # a model's own head has none
            self.passes.append((tuple(kwargs["input_ids"].shape), int(kwargs["attention_mask"].sum())))

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in self._model.named_parameters()}


def one_step(
    model: Path,
    rows: list[Row],
    tokenizer: Any,
    folder: Path,
    dtype: str = "float32",
    *,
    num_rows: int | None = None,
    per_pass: int = 4,
) -> tuple[FineTuner, Recorder]:
    """Train one optimizer step on all rows."""
    words = ["run_cfg=teacher_sft", f"output_dir={folder}", "trainer.max_steps=1", "report_to=null"]
    words += [f"train_batch_size={num_rows or len(rows)}", f"per_device_train_batch_size={per_pass}"]
    words += ["trainer.save_steps=0", "trainer.max_grad_norm=0", "trainer.gradient_checkpointing=false"]
    config = compose([*words, f"model_name_or_path={model}", "model.dtype=float32"])
    arguments = sft_arguments(config, RunContext(1, use_cpu=True, deepspeed=False))
    arguments["model_init_kwargs"]["dtype"] = getattr(torch, dtype)
    data = SFTData(rows, None, all_of(len(rows)))
    trainer = make_sft_trainer(str(model), arguments, data=data, tokenizer=tokenizer)
    recorder = Recorder(trainer)
    trainer.add_callback(recorder)
    trainer.train()
    return trainer, recorder


def padded_step(model: Path, rows: list[Row], dtype: torch.dtype) -> tuple[float, float, dict[str, Tensor]]:
    """Return loss, mean entropy of the predictions, and gradients of all rows as one padded batch."""
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
    width = max(len(row["input_ids"]) for row in rows)
    ids_BT, labels_BT = torch.zeros(len(rows), width).long(), torch.full((len(rows), width), IGNORED)
    mask_BT = torch.zeros(len(rows), width).long()
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        ids_BT[i, :n], labels_BT[i, :n] = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        mask_BT[i, :n] = 1
    counted_BT = labels_BT[:, 1:] != IGNORED
    logits_NV = plain(input_ids=ids_BT, attention_mask=mask_BT).logits[:, :-1][counted_BT]
    loss = torch.nn.functional.cross_entropy(logits_NV, labels_BT[:, 1:][counted_BT])
    loss.backward()
    entropy = torch.distributions.Categorical(logits=logits_NV.detach()).entropy().mean()
    return (
        float(loss.item()),
        entropy.item(),
        {n: p.grad for n, p in plain.named_parameters() if p.grad is not None},
    )


class ExactHead:
    """Stands for TRL's LM head, which computes in float32 whatever the model's dtype is."""

    @staticmethod
    def apply(hidden_NH: Tensor, weight_VH: Tensor, _: Any, labels_N: Tensor, *__: Any) -> tuple[Any, ...]:
        logprobs_NV = torch.log_softmax(hidden_NH @ weight_VH.T, -1)
        zeros_N = torch.zeros_like(labels_N)
        return logprobs_NV[range(len(labels_N)), labels_N], zeros_N, None, None, zeros_N


@pytest.mark.parametrize(
    ("dtype", "close", "own_head"),
    [("float32", 1e-5, False), ("float32", 1e-5, True), ("float64", 1e-7, False)],
)
def test_a_step_of_a_long_tailed_mix(
    dtype: str, close: float, own_head: bool, tiny_teacher: Path, tiny_tokenizer, tmp_path, monkeypatch
):
    """In the loader's order the passes of this mix computed 2.16 tokens for each real one.

    With `own_head` the loss is taken as for a family that TRL's fused head does not know.
    """
    if own_head:
        monkeypatch.setattr(LossHead, "_trl_is_right", lambda *_: False)
    if dtype == "float64":
        monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)
    rows = long_tailed_rows()
    trainer, seen = one_step(tiny_teacher, rows, tiny_tokenizer, tmp_path, dtype)
    real = sum(tokens for _, tokens in seen.passes)
    computed = sum(num_rows * width for (num_rows, width), _ in seen.passes)
    assert real == sum(len(row["input_ids"]) for row in rows)
    assert [num_rows for (num_rows, _), _ in seen.passes] == [4] * 16
    widths = [width for (_, width), _ in seen.passes]
    assert widths == sorted(widths, reverse=True)  # what does not fit into memory fails at once
    assert computed / real <= 1.1
    logged = next(row for row in trainer.state.log_history if "loss" in row)
    assert logged["perf/padding"] == pytest.approx(computed / real)
    assert logged["perf/tokens_per_second"] == pytest.approx(real / logged["time/step"])
    assert {name for name in logged if name.startswith("time/")} == {"time/step", "time/read", "time/update"}
    assert 0 < logged["time/read"] + logged["time/update"] <= logged["time/step"]
    assert "perf/mfu" not in logged  # on a CPU
    loss, entropy, gradients = padded_step(tiny_teacher, rows, getattr(torch, dtype))
    assert seen.loss == pytest.approx(loss, abs=close)
    if dtype == "float32":  # the exact head tells no entropy
        assert logged["entropy"] == pytest.approx(entropy, abs=1e-5)
    worst = max((seen.gradients[n] - gradients[n]).abs().max().item() for n in gradients)
    assert worst < close


def test_a_row_alone_needs_no_attention_mask(tiny_teacher: Path, tiny_tokenizer, tmp_path, monkeypatch):
    """transformers drops a mask that is all ones, and SDPA takes its causal kernel: none is built here."""
    plain, calls = torch.nn.functional.scaled_dot_product_attention, []

    def attend(query: Tensor, *args: Any, attn_mask: Tensor | None = None, is_causal: bool, **named: Any):
        if torch.is_grad_enabled():  # the look at the head before training has no gradients
            calls.append((query.size(2), attn_mask is None, is_causal))
        return plain(query, *args, attn_mask=attn_mask, is_causal=is_causal, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    rows = [{"input_ids": [7] * n, "labels": [7] * n} for n in (5, 9, 7, 9)]
    one_step(tiny_teacher, rows, tiny_tokenizer, tmp_path / "alone", per_pass=1)
    assert calls[::2] == [(n, True, True) for n in (9, 9, 7, 5)]  # of the first of two layers
    calls.clear()
    one_step(tiny_teacher, rows, tiny_tokenizer, tmp_path / "pairs", per_pass=2)
    assert calls[::2] == [(9, True, True), (7, False, False)]


def test_an_incomplete_last_step_keeps_the_sizes_of_its_passes(tiny_teacher, tiny_tokenizer, tmp_path):
    """Seven rows in passes of four: the four longest, then the other three."""
    rows = [{"input_ids": [7] * n, "labels": [IGNORED, *[7] * (n - 1)]} for n in (3, 12, 5, 11, 4, 10, 9)]
    _, seen = one_step(tiny_teacher, rows, tiny_tokenizer, tmp_path, num_rows=8)
    assert seen.passes == [((4, 12), 12 + 11 + 10 + 9), ((3, 5), 5 + 4 + 3)]


def test_rows_keep_their_places_in_the_dataset(tiny_teacher, tiny_tokenizer, tmp_path):
    """Under seed 42 six rows come as 0 3 2 4 1 5, two rows by themselves as 0 1."""
    rows = [{"input_ids": [7] * n, "labels": [7] * n} for n in (5, 9)]
    trainer, _ = one_step(tiny_teacher, rows, tiny_tokenizer, tmp_path, per_pass=1)
    trainer.state.epoch = 0
    assert trainer.args.data_seed == 42
    assert list(trainer._get_train_sampler()) == [0, 1]
    trainer.places = Places([1, 2], 6)
    assert list(trainer._get_train_sampler()) == [1, 0]
