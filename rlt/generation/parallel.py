"""Running blocking calls side by side, where the first failure counts at once.

The threads are daemons: a call that never returns (a collective whose peer died) cannot keep the
process alive, which the threads of concurrent.futures would.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from rlt.errors import GenerationError
from rlt.surroundings.clock import running

T = TypeVar("T")
_END = object()


class TimeLimit:
    """Seconds, from now, that all requests of one undertaking may take together.

    `setting` is what an error names as the remedy.
    """

    def __init__(self, what: str, seconds: float, setting: str) -> None:
        self._what = what
        self._seconds = seconds
        self._setting = setting
        self._end = running() + seconds

    def left(self) -> float:
        """Return the seconds that are left; GenerationError when there are none."""
        left = self._end - running()
        if left <= 0:
            raise GenerationError(
                f"{self._what} was not done within {self._seconds:g} s; set {self._setting} to more seconds "
                "if it was only slow"
            )
        return left


_NUM_NAMED = 5
"""Unfinished tasks that an error names; of more it gives the number."""


class Watch(Protocol):
    """What is asked now and then while results are waited for; it raises what ends the waiting."""

    look_every: float
    """Seconds between two calls of `check`."""

    def check(self) -> None:
        """Raise if nothing is to be waited for any more."""
        ...


def run_all(
    tasks: Sequence[tuple[str, Callable[[], T]]],
    *,
    max_threads: int | None = None,
    timeout: float | None = None,
    watch: Watch | None = None,
) -> list[T]:
    """Return the results of all (name, call) tasks, in order.

    The first failure is raised at once and no further task starts. After `timeout` seconds the names
    of the unfinished tasks are raised as GenerationError; None trusts the watch and the calls' own timeouts.
    """
    results = dict(_as_done(tasks, max_threads, timeout, watch))
    return [results[i] for i in range(len(tasks))]


def run_each(
    tasks: Sequence[tuple[str, Callable[[], T]]],
    *,
    max_threads: int | None = None,
    watch: Watch | None = None,
) -> Iterator[tuple[int, T]]:
    """Yield (index, result) of each task as soon as it is done.

    The first failure is raised at once and no further task starts, nor does one after the caller has stopped
    listening.
    """
    return _as_done(tasks, max_threads, None, watch)


def _as_done(
    tasks: Sequence[tuple[str, Callable[[], T]]],
    max_threads: int | None,
    timeout: float | None,
    watch: Watch | None,
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

    _start_threads(work, min(len(tasks), max_threads or len(tasks)))

    unfinished = set(range(len(tasks)))
    deadline = math.inf if timeout is None else running() + timeout
    look_at = math.inf if watch is None else running() + watch.look_every
    try:
        while unfinished:
            index, result, error = _next(done, min(deadline, look_at)) or (None, None, None)
            if watch is not None and running() >= look_at:  # also while others answer
                watch.check()
                look_at = running() + watch.look_every
            if error is not None:
                raise error
            if index is not None:
                unfinished.remove(index)
                yield index, result  # pyright: ignore[reportReturnType]
            elif running() >= deadline:
                raise GenerationError(
                    f"no answer within {timeout:g} s from: {_names(tasks, sorted(unfinished))}"
                )
    finally:
        stopped.set()


def _start_threads(work: Callable[[], None], count: int) -> None:
    """Start so many threads, or as many as the machine allows, but at least one."""
    for started in range(count):
        try:
            threading.Thread(target=work, daemon=True, name="rlt-generation").start()
        except RuntimeError:  # the limit of threads: of the user, or of the container
            if not started:
                raise
            return


class Arrivals(Generic[T]):
    """What an iterator yields, gathered by a thread of its own while the caller does other work."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._is_over = False
        threading.Thread(target=self._gather, daemon=True, name="rlt-arrivals").start()

    def take(self, *, wait: bool) -> list[T]:
        """Return what has come since the last call; with `wait` at least one item, unless all have come.

        What the iterator has raised is raised once the items before it have been taken.
        """
        taken: list[T] = []
        while not self._is_over:
            try:
                item = self._found.get(block=wait and not taken)
            except queue.Empty:
                return taken
            if item is _END:
                self._is_over = True
            else:
                taken.append(item)
        if self._failure is not None and not taken:
            raise self._failure
        return taken

    def _gather(self) -> None:
        try:
            for item in self._items:
                self._found.put(item)
        except BaseException as error:
            # Whatever it is, it belongs to the thread that takes the items.
            self._failure = error
        finally:
            self._found.put(_END)


def _next(found: queue.SimpleQueue[T], until: float) -> T | None:
    """Return the next item, None if there is none at that time of `running`."""
    try:
        return found.get(timeout=None if until == math.inf else max(0.0, until - running()))
    except queue.Empty:
        return None


def _names(tasks: Sequence[tuple[str, Callable[[], T]]], indices: Sequence[int]) -> str:
    names = "; ".join(tasks[i][0] for i in indices[:_NUM_NAMED])
    more = len(indices) - _NUM_NAMED
    return names if more <= 0 else f"{names} and {more} more"
