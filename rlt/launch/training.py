"""The training process: its output goes to the console and to a log file."""

from __future__ import annotations

import fcntl
import os
import pty
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from rlt.launch.descendants import GRACE
from rlt.launch.process import Child

_CHUNK = 65536
DRAIN_TIMEOUT = 2.0
"""Seconds for the last words; somebody who outlives the training may hold its output open."""


class TrainingProcess:
    """A started training command; a thread copies what it writes, so that it never waits at a full pipe."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        """Start the command; with a terminal as our output it sees one too, for its progress bars."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("ab", buffering=0)
        source, sink = _terminal() if sys.stdout.isatty() else os.pipe()
        try:
            self.child = Child("training", command, env, sink)
        finally:
            os.close(sink)
        # A daemon, since a console that takes nothing any more would hold it for ever.
        copy = partial(copy_output, source, log, sys.stdout.fileno())
        self._copying = threading.Thread(target=copy, daemon=True)
        self._copying.start()

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self.child.pid

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.child.poll()

    def stop(self, grace: float = GRACE) -> None:
        """End the training and everything it started, by force after `grace` seconds; copy its last words."""
        self.child.stop(grace)
        self.drain()

    def drain(self) -> None:
        """Wait until what is left of the output is copied."""
        self._copying.join(DRAIN_TIMEOUT)


def copy_output(source: int, log: IO[bytes], console: int | None) -> None:
    """Copy what comes from `source` to a log and a console, until it ends."""
    with log, os.fdopen(source, "rb"):
        while chunk := _read(source):
            with suppress(OSError):  # a full disk costs lines of the log; a pipe without reader, the training
                log.write(chunk)
            while chunk and console is not None:
                try:
                    chunk = chunk[os.write(console, chunk) :]
                except OSError:
                    console = None  # the terminal is closed; the log and the training continue


def _read(source: int) -> bytes:
    """Return what the training has written, nothing at the end."""
    try:
        return os.read(source, _CHUNK).replace(b"\r\n", b"\n")
    except OSError:  # the end of a pseudo-terminal
        return b""


def _terminal() -> tuple[int, int]:
    """Return both ends of a pseudo-terminal as wide as ours."""
    ours, theirs = pty.openpty()
    size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    return ours, theirs
