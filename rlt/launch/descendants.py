"""Finding the processes that a launcher has started, however they hide.

Every child inherits an environment variable with marks, and leads a session of its own. Both are needed:
torchrun's workers leave the session, and a process that changes its title (vLLM's engine) can wipe the mark.
A session is named by its leader's id and start: the system gives ids again, and what then leads a session of
that number is somebody else's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from rlt.surroundings.clock import start_of

MARK = "RLT_STARTED_BY"
"""Environment variable with the marks of all launchers above a process, separated by commas."""
GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL."""
_FREEING_GRACE = 3.0

Leaders = Mapping[int, int | None]
"""Processes that lead a session, by id: when each one started, as `start_of` says."""


def living(mark: str, leaders: Leaders | None = None) -> list[psutil.Process]:
    """Return the living processes, ourselves apart, that carry the mark or are in a leader's session."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if _is_led(process.pid, leaders or {}) or mark in _mark_of(process).split(","):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone in between, or somebody else's
    return found


def kill_living(mark: str, leaders: Leaders) -> int:
    """Send SIGKILL to what is living; return how many that were.

    To be repeated until it returns 0: a killed process may have just started another. Those that free the
    shared memory of the others, hundreds of MB for a vLLM server, are left to do so, and go by themselves.
    """
    found = living(mark, leaders)
    others = [process for process in found if not _frees_memory(process)]
    if found and not others:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.resume()  # in case it was stopped with the others
        psutil.wait_procs(found, timeout=_FREEING_GRACE)
    for process in others or found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return len(found)


def _is_led(pid: int, leaders: Leaders) -> bool:
    """Return whether a process is in the session of a leader, which may have ended."""
    leader = os.getsid(pid)
    if leader not in leaders:
        return False
    try:
        return start_of(leader) == leaders[leader]
    except ProcessLookupError:  # its number is not given again as long as its session has members
        return True


def _frees_memory(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _mark_of(process: psutil.Process) -> str:
    """Return the marks of a process.

    psutil stops at the first gap in an environment, and a changed title leaves one in front.
    """
    try:
        entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except FileNotFoundError:  # not Linux
        return process.environ().get(MARK, "")
    prefix = f"{MARK}=".encode()
    return next((e[len(prefix) :].decode() for e in entries if e.startswith(prefix)), "")
