"""Running blocking calls side by side, where the first failure counts at once.

The threads are daemons: a call that never returns (a collective whose peer died) cannot keep the
process alive, which the threads of concurrent.futures would.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rlt.errors import GenerationError

T = TypeVar("T")


_NUM_NAMED = 5
"""Unfinished tasks that an error names; of more it gives the number."""


def run_all(
    tasks: Sequence[tuple[str, Callable[[], T]]],
    *,
    max_threads: int | None = None,
    timeout: float | None = None,
) -> list[T]:
    """Return the results of all (name, call) tasks, in order.

    The first failure is raised at once and no further task starts. After `timeout` seconds the names
    of the unfinished tasks are raised as GenerationError; None trusts the calls' own timeouts.
    """
    deadline = None if timeout is None else time.monotonic() + timeout

    def seconds_left() -> float | None:
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    results = dict(_as_done(tasks, max_threads, seconds_left, timeout))
    return [results[i] for i in range(len(tasks))]


def run_each(
    tasks: Sequence[tuple[str, Callable[[], T]]],
    *,
    max_threads: int | None = None,
    patience: float | None = None,
) -> Iterator[tuple[int, T]]:
    """Yield (index, result) of each task as soon as it is done.

    The first failure is raised at once and no further task starts, nor does one after the caller has stopped
    listening. `patience` is the number of seconds in which at least one task has to be done.
    """
    return _as_done(tasks, max_threads, lambda: patience, patience)


def _as_done(
    tasks: Sequence[tuple[str, Callable[[], T]]],
    max_threads: int | None,
    seconds_left: Callable[[], float | None],
    timeout: float | None,
) -> Iterator[tuple[int, T]]:
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, T | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()
    for index in range(len(tasks)):
        todo.put(index)

    def work() -> None:
        while not stopped.is_set():
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((index, tasks[index][1](), None))
            except BaseException as error:
                # Whatever it is, it belongs to the waiting thread, which raises it.
                done.put((index, None, error))

    for _ in range(min(len(tasks), max_threads or len(tasks))):
        threading.Thread(target=work, daemon=True, name="rlt-generation").start()

    unfinished = set(range(len(tasks)))
    try:
        while unfinished:
            try:
                index, result, error = done.get(timeout=seconds_left())
            except queue.Empty:
                raise GenerationError(
                    f"no answer within {timeout:g} s from: {_names(tasks, sorted(unfinished))}"
                ) from None
            if error is not None:
                raise error
            unfinished.remove(index)
            yield index, result  # pyright: ignore[reportReturnType]
    finally:
        stopped.set()


def _names(tasks: Sequence[tuple[str, Callable[[], T]]], indices: Sequence[int]) -> str:
    names = "; ".join(tasks[i][0] for i in indices[:_NUM_NAMED])
    more = len(indices) - _NUM_NAMED
    return names if more <= 0 else f"{names} and {more} more"
