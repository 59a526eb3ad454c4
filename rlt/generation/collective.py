"""Work of a distributed run that may fail on one process: its success or failure reaches every process.

An exception on one process alone would leave the others waiting in their next collective. While one works,
the others wait outside of any collective (heartbeat.py), so that no process group's time limit counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from rlt.errors import GenerationError, RLTError
from rlt.generation.heartbeat import Meeting

logger = logging.getLogger(__name__)
T = TypeVar("T")


def on_main_process(accelerator: Accelerator, call: Callable[[], T]) -> T:
    """Return on every process what `call` returns on the main process.

    If it raises there, every process raises an error of the same class with the same message;
    GenerationError for errors of other libraries.
    """
    meeting = Meeting(accelerator.process_index, accelerator.num_processes)
    result: Any = None
    message: str | None = None
    kind: type[RLTError] = GenerationError
    cause: Exception | None = None
    if accelerator.is_main_process:
        try:
            with meeting.working():
                result = call()
        except Exception as error:
            # Any failure, a bug too, has to end the other processes, which wait in the broadcast below.
            ours = isinstance(error, RLTError)
            kind, message = (type(error), str(error)) if ours else (kind, f"{type(error).__name__}: {error}")
            cause = error
    else:
        meeting.await_done(0)
    if accelerator.num_processes > 1:
        outcome = broadcast_object_list([result, message, kind], from_process=0)
        assert outcome is not None
        result, message, kind = outcome
    if message is not None:
        raise kind(message) from cause
    return result


def on_every_process(accelerator: Accelerator, call: Callable[[], T]) -> T:
    """Return what `call` returns here; if it raises one of our errors anywhere, raise it everywhere.

    A process that fails alone would leave the others waiting in their next collective, and nobody would see
    its words.
    """
    meeting = Meeting(accelerator.process_index, accelerator.num_processes)
    result: Any = None
    failure: tuple[type[RLTError], str] | None = None
    cause: RLTError | None = None
    try:
        with meeting.working():
            result = call()
    except RLTError as error:
        failure, cause = (type(error), str(error)), error
    for rank in range(accelerator.num_processes):
        if rank != accelerator.process_index:
            meeting.await_done(rank)
    failures = gather_object([failure])
    first = next(((rank, found) for rank, found in enumerate(failures) if found), None)
    if first is None:
        return result
    rank, (kind, message) = first
    where = f" (on process {rank} of {accelerator.num_processes})" if accelerator.num_processes > 1 else ""
    raise kind(message + where) from cause


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
        except RLTError as error:
            # Logged now: the gathers below take a while, and users want to know why nothing moves.
            logger.error("%s", error)
            raise
        finally:
            _drain(weights)

    if not accelerator.is_main_process:
        _drain(weights)
    on_main_process(accelerator, work)


def _drain(weights: Iterator[tuple[str, Tensor]]) -> None:
    for _ in weights:
        pass
