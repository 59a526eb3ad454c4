"""Waiting for another process outside of any collective, for as long as it works.

In a collective the time limit of its process group would count from the start, and NCCL ends the process at
its end. Here the working process says every minute that it is alive, in the key-value store that torch's
process group has come together with, and the others wait for its next word. The work limits its own time.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlt.errors import GenerationError
from rlt.surroundings.clock import running

SAY_EVERY = 60.0
"""Seconds between two words of a process that works."""
SILENT_AFTER = 600.0
"""Seconds without a word after which a process is given up: foreign code holds it, or its machine is gone."""
_LOOK_FIRST, _LOOK_EVERY = 0.002, 0.5
"""Seconds between two looks: the first of a wait, and those of a long one."""
_WORKING, _DONE = b"working", b"done"
_numbers = itertools.count()


class Meeting:
    """One wait of a run's processes for some of them. Every process makes one at the same point."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._number = next(_numbers)
        self._rank = rank
        self._world_size = world_size

    @contextmanager
    def working(self) -> Iterator[None]:
        """Tell the others that this process works in the block, and then that it is done, failed or not."""
        if self._world_size == 1:
            yield
            return
        stopped = threading.Event()
        speaker = threading.Thread(target=self._speak, args=(_store(), stopped), daemon=True)
        speaker.start()
        try:
            yield
        finally:
            stopped.set()
            speaker.join()

    def await_done(self, rank: int) -> None:
        """Return when a process is done; GenerationError when it says nothing any more."""
        store = _store()
        for word in itertools.count():
            key, start, pause = self._key(rank, word), running(), _LOOK_FIRST
            try:
                # Not store.wait, whose limit counts the time in which this process was suspended.
                while not store.check([key]):
                    if running() - start > SILENT_AFTER:
                        raise TimeoutError
                    time.sleep(pause)
                    pause = min(2 * pause, _LOOK_EVERY, SILENT_AFTER / 4)
                if store.get(key) == _DONE:
                    return
            except (TimeoutError, RuntimeError) as error:  # torch's DistStoreError and DistNetworkError
                raise GenerationError(
                    f"process {rank} of {self._world_size} has ended, or given no sign of life for "
                    f"{SILENT_AFTER:g} s; its own last words are in the run's logs/train.log"
                ) from error

    def _speak(self, store: Any, stopped: threading.Event) -> None:
        for word in itertools.count():
            is_done = stopped.wait(SAY_EVERY)
            store.set(self._key(self._rank, word), _DONE if is_done else _WORKING)
            if is_done:
                return

    def _key(self, rank: int, word: int) -> str:
        return f"rlt/{self._number}/{rank}/{word}"


def _store() -> Any:
    """Return a connection of its own to the store: a wait would block all who share it."""
    # Public torch has no way to a process group's store. One of our own would need another open port.
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store().clone()  # pyright: ignore[reportAttributeAccessIssue] - missing in torch's stub
