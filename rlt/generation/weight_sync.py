"""Pushing trained weights to running vLLM servers: what every way has in common.

A push happens on the main process only; under ZeRO-3 the other processes run through the same
iterator (see collective.py). What servers hold before the first push is unknown, so a trainer pushes
before it generates. nccl_sync.py is the broadcast between GPUs, checkpoint_sync.py the way over files,
choose_sync.py chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor

from rlt.errors import GenerationError


class WeightSync(Protocol):
    """A way for new weights to reach the servers."""

    @property
    def version(self) -> Path | None:
        """The folder of the weights that the servers hold; None before the first push, or without files."""
        ...

    def push(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Make every server generate with these weights. Runs through the whole iterator.

        Names are those of the servers' checkpoint (names.py), `lm_head.weight` among them when untied.
        Raises GenerationError with the servers' words when it fails or takes too long.
        """
        ...

    def reconnect(self) -> None:
        """Forget what is known of the servers: they have been started again."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def check_names(names: set[str], before: set[str] | None) -> set[str]:
    """Return the names of a push, or raise if they are not those of the push before."""
    if not names:
        raise GenerationError("a weight sync without any tensor would leave the servers on old weights")
    if before is not None and names != before:
        missing, extra = sorted(before - names), sorted(names - before)
        raise GenerationError(
            "the tensors of this weight sync are not those of the one before, so servers would mix "
            f"old and new weights (missing: {missing[:5]}, new: {extra[:5]})"
        )
    return names
