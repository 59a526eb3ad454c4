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


def consume_on_main_process(
    accelerator: Accelerator,
    weights: Iterator[tuple[str, Tensor]],
    consume: Callable[[Iterator[tuple[str, Tensor]]], Any],
) -> None:
    """Let the main process consume weights that all processes gather together.

    Every process passes its own iterator over the same model and runs through all of it, the main one
    even when `consume` fails: leaving the gathers early would block the others.
    """

    def work() -> None:
        try:
            consume(weights)
        finally:
            _drain(weights)

    if not accelerator.is_main_process:
        _drain(weights)
    on_main_process(accelerator, work)


def _drain(weights: Iterator[tuple[str, Tensor]]) -> None:
    for _ in weights:
        pass
