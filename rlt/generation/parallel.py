"""Running blocking calls side by side, where the first failure counts at once.

The threads are daemons: a call that never returns (a collective whose peer died) cannot keep the
process alive, which the threads of concurrent.futures would.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from rlt.errors import GenerationError

T = TypeVar("T")


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
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, T | None, BaseException | None]] = queue.SimpleQueue()
    failed = threading.Event()
    for index in range(len(tasks)):
        todo.put(index)

    def work() -> None:
        while not failed.is_set():
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

    deadline = None if timeout is None else time.monotonic() + timeout
    results: dict[int, T] = {}
    try:
        while len(results) < len(tasks):
            try:
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                index, result, error = done.get(timeout=remaining)
            except queue.Empty:
                waiting = [name for i, (name, _) in enumerate(tasks) if i not in results]
                raise GenerationError(f"no answer within {timeout:g} s from: {'; '.join(waiting)}") from None
            if error is not None:
                raise error
            results[index] = result  # pyright: ignore[reportArgumentType]
    finally:
        failed.set()
    return [results[i] for i in range(len(tasks))]
