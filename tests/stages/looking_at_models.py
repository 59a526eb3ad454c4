"""train.py for several runs one after the other, each of which says what its models are.

Run under accelerate by test_bfloat16.py. argv is a JSON file: the words of each run under its name. Beside
it, `NAME.RANK.pt` gets the buffers of each model of that run and its log-probabilities of one text of 4,096
tokens: `policy` and `reference` when training begins, `policy_end` and `reference_end` when it ends, and each
frozen model, `frozen_1` the first, when it is loaded. The policy also has the settings of its optimizer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import TrainerCallback

import rlt.models.frozen
import rlt.trainers.epochs
import train
from rlt.models.logprobs import Request

NUM_TOKENS = 4096
IDS = [(7 * i + 3 * i * i + i // 5) % 290 for i in range(NUM_TOKENS)]
SETTINGS = ("lr", "weight_decay")
found: dict[str, Any] = {}


@torch.no_grad()
def logprobs_of(model: Any, *, as_loss: bool = False) -> Tensor:
    """Return log p of every token of the text but the first, float32; `as_loss`: by TRL's forward pass."""
    ids = torch.tensor([IDS])
    if as_loss:
        return model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True).log_probs[0].float()
    logits_TV = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits_TV[:-1].log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]


def buffers_of(model: Any) -> dict[str, Tensor]:
    """Return the buffers by the names that they have in the plain model, whatever is wrapped around it."""
    while hasattr(model, "module"):
        model = model.module
    if hasattr(model, "get_base_model"):  # under adapters
        model = model.get_base_model()
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


class Look(TrainerCallback):
    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        # The loss does not run the LM head as a module. After a pass that does, the first backward pass would
        # fail under ZeRO-3 ("size of tensor a (0)"): DeepSpeed expects the modules that it saw before. In RL
        # generation comes in between, after which TRL lets it forget them.
        self._is_rl = hasattr(trainer, "ref_model")

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._look("")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._look("_end")

    def _look(self, when: str) -> None:
        for role, model in (
            ("policy", self._trainer.model_wrapped),
            ("reference", getattr(self._trainer, "ref_model", None)),
        ):
            if model is not None:
                found[role + when] = look = {"buffers": buffers_of(model)}
                was_training = model.training
                model.eval()
                look["logprobs"] = logprobs_of(model, as_loss=not self._is_rl)
                model.train(was_training)
        groups = self._trainer.optimizer.param_groups
        found["policy" + when]["optimizer"] = [{key: group[key] for key in SETTINGS} for group in groups]


def watched(original: Callable[..., None]) -> Callable[..., None]:
    def run(trainer: Any, checkpoint: Path | None) -> None:
        trainer.add_callback(Look(trainer))
        original(trainer, checkpoint)

    return run


def looked_at(original: Callable[..., Any]) -> Callable[..., Any]:
    def load(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        positions = list(range(1, NUM_TOKENS))
        [logprobs] = model.logprobs([Request(IDS, positions)], temperature=1.0, tokens_per_batch=NUM_TOKENS)
        with model.in_place() as module:
            number = 1 + sum(name.startswith("frozen") for name in found)
            found[f"frozen_{number}"] = {"buffers": buffers_of(module), "logprobs": logprobs}
        return model

    return load


def main(plan: Path) -> int:
    # Before any stage is imported, so that each of them imports these.
    rlt.models.frozen.load_frozen = looked_at(rlt.models.frozen.load_frozen)
    rlt.trainers.epochs.train = watched(rlt.trainers.epochs.train)
    torch.distributed.destroy_process_group = lambda *_: None  # a run ends with it; the next one continues
    for name, words in json.loads(plan.read_text()).items():
        found.clear()
        if code := train.main(words):
            return code
        torch.save(found, plan.parent / f"{name}.{os.environ['RANK']}.pt")
        AcceleratorState._reset_state(reset_partial_state=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
