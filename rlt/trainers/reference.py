"""The reference policy that follows the trained one: every n steps, share * policy + (1 - share) * reference.

TRL's own callback gathers both whole models on every rank under ZeRO-3 and its checkpoints forget the
moved weights. Here parameters are mixed one by one, and a checkpoint holds the reference in `reference/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlt.errors import CheckpointError
from rlt.generation.checkpoint_sync import MAX_SHARD_BYTES, write_checkpoint
from rlt.generation.collective import consume_on_main_process
from rlt.models.gather import gathered

FOLDER = "reference"


class MovingReference(TrainerCallback):
    """Mixes the policy into the reference, and keeps the reference in checkpoints."""

    def __init__(
        self,
        policy: nn.Module,
        reference: Any,
        accelerator: Accelerator,
        *,
        every: int,
        share: float,
        folder: str = FOLDER,
    ) -> None:
        """`folder` of a checkpoint holds the reference."""
        self._folder = folder
        self._policy = policy
        self._reference: nn.Module = accelerator.unwrap_model(reference)  # pyright: ignore[reportAttributeAccessIssue]
        self._accelerator = accelerator
        self._every = every
        self._share = share

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Mix after every n-th optimizer step."""
        if state.global_step % self._every == 0:
            self.mix()

    @torch.no_grad()
    def mix(self) -> None:
        """Replace the reference by share * policy + (1 - share) * reference, parameter by parameter."""
        pairs = zip(self._policy.parameters(), self._reference.parameters(), strict=True)
        for policy, reference in pairs:
            with gathered([policy]), gathered([reference], written=True) as writes:
                if writes:
                    reference.mul_(1 - self._share).add_(
                        policy.to(reference.device, reference.dtype), alpha=self._share
                    )

    def save(self, checkpoint: Path) -> None:
        """Write the reference's weights into a checkpoint; collective under ZeRO-3."""

        def weights() -> Iterator[tuple[str, torch.Tensor]]:
            for name, parameter in self._reference.named_parameters():
                with gathered([parameter]):
                    yield name, parameter.detach()

        def write(parts: Iterator[tuple[str, torch.Tensor]]) -> None:
            try:
                write_checkpoint(parts, checkpoint / self._folder, MAX_SHARD_BYTES)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"the reference model cannot be written to {checkpoint / self._folder} ({error}); make "
                    "room there and resume from the checkpoint before"
                ) from error

        consume_on_main_process(self._accelerator, weights(), write)

    @torch.no_grad()
    def load(self, checkpoint: Path) -> None:
        """Take the reference's weights from a checkpoint."""
        folder = require_reference(checkpoint, self._folder)
        shard_of = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        for name, parameter in self._reference.named_parameters():
            with gathered([parameter], written=True) as writes:
                if writes:
                    with safe_open(folder / shard_of[name], framework="pt") as shard:
                        parameter.copy_(shard.get_tensor(name))


def require_reference(checkpoint: Path, name: str = FOLDER) -> Path:
    """Return a checkpoint's folder of the moved reference.

    Raises CheckpointError when it has none: continuing with another reference changes the result.
    """
    folder = checkpoint / name
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint {checkpoint} holds no {name}/ folder with the moved {name} model; resuming "
            "without it would change the loss: resume from a checkpoint that has it, or start again "
            "with this checkpoint as model_name_or_path"
        )
    return folder
