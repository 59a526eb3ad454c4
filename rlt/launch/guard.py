"""The guard: a process that outlives a killed launcher, ends what that has started and clears up after it.

A launcher ends its children itself whenever it can. SIGKILL leaves it no chance, but closes its end of a
pipe, and the guard waits at the other.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path

import psutil

from rlt.generation.sync_folder import remove_sync_folder
from rlt.launch.descendants import GRACE, kill_living, living
from rlt.surroundings.clock import start_of
from rlt.surroundings.process_name import name_process
from rlt.surroundings.waiting import wait_until

KILL_TIMEOUT = 10.0
"""Seconds that the kernel gets to end killed processes, which may have much memory to give back."""


class Guard:
    """The launcher's side of its guard."""

    def __init__(self) -> None:
        """Start the guard; it ends after us."""
        self.mark = uuid.uuid4().hex[:12]
        """What the guard will look for."""
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "rlt.launch.guard", self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # whatever ends our group must not end it
        )
        atexit.register(self._close)

    def watch(self, pid: int) -> None:
        """Add a child that leads a session to the guard's list."""
        self._tell([pid, start_of(pid)])

    def clear(self, sync_folder: Path) -> None:
        """Add a folder of weight syncs, which nobody needs after the launcher's children."""
        self._tell(str(sync_folder))

    def leave(self) -> None:
        """Let go of the guard in a forked child: its copy of the pipe would hide our end from the guard."""
        assert self._popen.stdin is not None
        os.close(self._popen.stdin.fileno())

    def _tell(self, what: list[int | None] | str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{json.dumps(what)}\n".encode())
        self._popen.stdin.flush()

    def _close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.communicate(timeout=GRACE + 2 * KILL_TIMEOUT)


@cache
def the_guard() -> Guard:
    """Return this process's guard, started at the first call."""
    return Guard()


def main(mark: str) -> None:
    """Wait for the launcher's end, then end what it left and remove the weight syncs of its run."""
    name_process("rlt:guard")
    received = [json.loads(line) for line in sys.stdin]
    leaders: dict[int, int | None] = {what[0]: what[1] for what in received if isinstance(what, list)}
    for process in living(mark, leaders):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    wait_until(lambda: not living(mark, leaders), GRACE)
    wait_until(lambda: kill_living(mark, leaders) == 0, KILL_TIMEOUT)
    for folder in (Path(name) for name in received if isinstance(name, str)):
        remove_sync_folder(folder)


if __name__ == "__main__":
    main(sys.argv[1])
