"""A child process that can be ended with everything it started, and with nothing else.

A child runs in a session of its own, so a Ctrl-C in the terminal reaches only us and we decide the
order. Its environment carries a mark that all its descendants inherit, because some of them (torchrun's
workers) leave the process group: a group alone would leave them behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

MARK = "RLT_STARTED_BY"
"""Environment variable with the marks of all launchers above a process, separated by commas."""
GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL."""
_ORPHAN_GRACE = 2.0
_PR_SET_PDEATHSIG = 1


class Child:
    """A started command, its log and its descendants."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        output: IO[bytes] | int,
        cwd: Path | None = None,
    ) -> None:
        """Start the command with `env` on top of our environment; both its streams go to `output`."""
        self.name = name
        self.mark = uuid.uuid4().hex[:12]
        above = os.environ.get(MARK)
        full_env = {**os.environ, **env, MARK: f"{above},{self.mark}" if above else self.mark}
        self._popen = subprocess.Popen(
            list(command),
            env=full_env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_follow_parent(),
        )
        self.pid = self._popen.pid

    def poll(self) -> int | None:
        """Return the exit code as a shell would show it, None while it runs."""
        code = self._popen.poll()
        return 128 - code if code is not None and code < 0 else code

    def stop(self, grace: float = GRACE) -> None:
        """End the command and all its descendants: SIGTERM, and SIGKILL after `grace` seconds."""
        stop_all([self], grace)

    def terminate(self) -> None:
        """Ask the command's group to end."""
        if self._popen.poll() is None:
            _signal_group(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End what is left, at once."""
        end_marked(self.mark)
        for process in in_session(self.pid):  # a changed title can wipe the mark; the session stays
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._popen.poll() is None:
            _signal_group(self.pid, signal.SIGKILL)
        self._popen.wait(timeout=10)


def stop_all(children: Sequence[Child], grace: float = GRACE) -> None:
    """End the children and all their descendants, together: SIGTERM, and SIGKILL after `grace` seconds."""
    for child in children:
        child.terminate()
    _wait_until(lambda: all(child.poll() is not None for child in children), grace)
    # Descendants that outlive their command have nobody left to end them well.
    _wait_until(lambda: not any(marked(child.mark) for child in children), min(grace, _ORPHAN_GRACE))
    for child in children:
        child.kill()


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes, ourselves apart, whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if mark in _mark_of(process).split(","):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone in between, or somebody else's
    return found


def _mark_of(process: psutil.Process) -> str:
    """Return the mark in a process's environment.

    psutil stops at the first gap, and a process that changed its title (vLLM's engine does) has one in front.
    """
    try:
        entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except FileNotFoundError:  # not Linux
        return process.environ().get(MARK, "")
    prefix = f"{MARK}=".encode()
    return next((e[len(prefix) :].decode() for e in entries if e.startswith(prefix)), "")


def in_session(leader: int) -> list[psutil.Process]:
    """Return the living processes of the session that a child began."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_marked(mark: str, rounds: int = 20) -> None:
    """Kill every process that carries the mark, until none is left that could start another."""
    for _ in range(rounds):
        living = marked(mark)
        if not living:
            return
        for process in living:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)


def _wait_until(is_true: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.1)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)  # the child leads its session, so its pid is its group


def _follow_parent() -> Callable[[], None] | None:
    """Return what a child runs before its command: ask Linux for a SIGTERM when we die, even by SIGKILL.

    Bound to the starting thread by the kernel: start children from a thread that outlives them.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Looked up here: between fork and exec nothing may be imported or allocated under a lock.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return follow
