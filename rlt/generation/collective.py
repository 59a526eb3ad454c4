"""Work of the main process inside a distributed run, so that success and failure reach every process.

An exception on the main process alone would leave the others waiting in their next collective. While it
works, the others wait in a broadcast: the process group's timeout (`ddp_timeout`) has to be longer
than the timeouts of generation and sync.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from rlt.errors import GenerationError, RLTError
from rlt.generation.weight_sync import WeightSync

T = TypeVar("T")


def on_main_process(accelerator: Accelerator, call: Callable[[], T]) -> T:
    """Return on every process what `call` returns on the main process.

    If it raises there, every process raises an error of the same class with the same message;
    GenerationError where it is none of ours.
    """
    result: Any = None
    message: str | None = None
    kind: type[RLTError] = GenerationError
    cause: Exception | None = None
    if accelerator.is_main_process:
        try:
            result = call()
        except Exception as error:
            # Any failure, a bug too, has to end the other processes, which wait in the broadcast below.
            ours = isinstance(error, RLTError)
            kind, message = (type(error), str(error)) if ours else (kind, f"{type(error).__name__}: {error}")
            cause = error
    if accelerator.num_processes > 1:
        outcome = broadcast_object_list([result, message, kind], from_process=0)
        assert outcome is not None
        result, message, kind = outcome
    if message is not None:
        raise kind(message) from cause
    return result


def push_from_main_process(
    accelerator: Accelerator, sync: WeightSync | None, weights: Iterator[tuple[str, Tensor]]
) -> None:
    """Push weights from the main process while the others help to gather them.

    Every process passes its own iterator over the same model; only the main one needs a sync.
    """

    def push() -> None:
        assert sync is not None, "the main process has the sync"
        try:
            sync.push(weights)
        except Exception:
            # The others still gather: leaving the iterator early would block them.
            _drain(weights)
            raise

    if not accelerator.is_main_process:
        _drain(weights)
    on_main_process(accelerator, push)


def _drain(weights: Iterator[tuple[str, Tensor]]) -> None:
    for _ in weights:
        pass
