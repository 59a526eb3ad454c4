"""Which passes of an update recompute their activations in the backward pass, and which keep them.

With trainer.gradient_checkpointing=auto short micro-batches keep theirs, which saves a forward pass of four.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing

from rlt.config.schema import Config
from rlt.models.gather import max_over_processes
from rlt.trainers.meter import MeteredTraining


class SelectiveRecompute(MeteredTraining):
    """A trainer whose micro-batches of at most `recompute_above` tokens keep their activations."""

    recompute_above: int = 0
    """Padding included; 0 recomputes all of them, where gradient checkpointing is on."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a micro-batch.

        Overridden because transformers switches checkpointing for a whole run. Under ZeRO-3 a pass that
        recomputes layers gathers their weights again, so all processes do the same: what the longest of
        their micro-batches needs.
        """
        keeps = False
        if self.recompute_above and self.args.gradient_checkpointing and self.model.training:  # pyright: ignore[reportOptionalMemberAccess]
            keeps = max_over_processes(self.accelerator, _num_tokens(inputs)) <= self.recompute_above
        plain: Any = self.model
        how = self.args.gradient_checkpointing_kwargs
        assert how is None or isinstance(how, dict), "arguments.py gives a dictionary"
        with disable_gradient_checkpointing(plain, how) if keeps else nullcontext():
            return super().compute_loss(model, inputs, *args, **kwargs)


def _num_tokens(inputs: dict[str, Tensor]) -> int:
    """Return the tokens of a forward pass: of fine-tuning, or of prompts and completions."""
    names = ("input_ids",) if "input_ids" in inputs else ("prompt_ids", "completion_ids")
    return sum(inputs[name].numel() for name in names)


def recompute_above(config: Config) -> int:
    """Return the tokens up to which a micro-batch keeps its activations.

    launch.sh calculates them from the GPU's memory. Where it is unknown, all are recomputed.
    """
    is_auto = config.trainer.gradient_checkpointing == "auto"
    return (config.trainer.recompute_above or 0) if is_auto else 0
