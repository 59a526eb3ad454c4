"""Two clocks that no step of the wall clock moves: the time since boot, and the time in which we ran.

A limit on silence or on a hang counts `running()`. A process that was suspended (SIGSTOP, Ctrl-Z, `scontrol
suspend`, `docker pause`) continues with the rest of its limits. The system has no such clock: its
monotonic clocks advance while a process is stopped.

Some limits are in code of other libraries, and count a suspension: those of torch's process groups (a
collective that waits across it may end the training; resume_from=latest continues), of torchrun's own store,
and of a request that must not be sent twice (a weight sync fails, and the training saves and ends). Stop all
processes of a run, or none.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from functools import cache
from pathlib import Path

TICK = 0.25
"""Seconds between two looks at the system's clock."""
LONGEST_TICK = 1.0
"""Seconds that one look may count. A busy machine delays looks; a longer gap was a suspension."""


def since_boot() -> float:
    """Return seconds since this machine's boot, the same for all of its processes, sleep included."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # macOS counts it from boot, for all processes alike


@cache
def boot() -> str:
    """Return what names this boot of this machine, for times that are compared across processes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return socket.gethostname()


def start_of(pid: int) -> int | None:
    """Return when a process of this machine started, in ticks since boot; None where the system does not say.

    With its id it names a process. psutil's create_time is a wall time, and moves when the clock is set.
    Raises ProcessLookupError for a process that is not there.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        if not Path("/proc/self/stat").exists():
            return None
        raise ProcessLookupError(pid) from None
    except OSError:
        return None
    # Field 22; the second one, a name in brackets, may hold anything.
    return int(stat.rpartition(")")[2].split()[19])


class RunningClock:
    """Counts the seconds in which this process ran. Safe in threads, and in children made by fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ran = 0.0
        self._looked = time.monotonic()
        self._owner: int | None = None

    def seconds(self) -> float:
        """Return the seconds since the first call."""
        if self._owner != os.getpid():
            self._start()
        return self._look()

    def _start(self) -> None:
        # A fork copies the lock in whatever state it is, and no thread.
        self._lock, self._looked, self._owner = threading.Lock(), time.monotonic(), os.getpid()
        threading.Thread(target=self._tick, daemon=True, name="rlt-clock").start()

    def _tick(self) -> None:
        while True:
            time.sleep(TICK)
            self._look()

    def _look(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._ran += min(now - self._looked, LONGEST_TICK)
            self._looked = now
            return self._ran


_CLOCK = RunningClock()


def running() -> float:
    """Return the seconds in which this process ran since its first call; only differences mean something."""
    return _CLOCK.seconds()
