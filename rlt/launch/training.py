"""The training process: its output goes to the console and to a log file."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlt.launch.process import Child

_CHUNK = 65536


class TrainingProcess:
    """A started training command. `pump` has to be called while it runs, or it stops at a full pipe."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        """Start the command; with a terminal as our output it sees one too, for its progress bars."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = log_path.open("ab")
        self._source, sink = _terminal() if sys.stdout.isatty() else os.pipe()
        try:
            self.child = Child("training", command, env, sink)
        finally:
            os.close(sink)
        self._console: int | None = sys.stdout.fileno()
        self._at_end = False

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.child.poll()

    def pump(self, timeout: float) -> bool:
        """Copy what has been written, waiting at most `timeout` for it; return whether there was anything."""
        if self._at_end:
            time.sleep(timeout)
            return False
        if not select.select([self._source], [], [], timeout)[0]:
            return False
        try:
            chunk = os.read(self._source, _CHUNK)
        except OSError:  # the end of a pseudo-terminal
            chunk = b""
        self._at_end = not chunk
        self._copy(chunk.replace(b"\r\n", b"\n"))
        return bool(chunk)

    def stop(self) -> None:
        """End the training and everything it started; copy its last words."""
        self.child.stop()
        self.drain()
        os.close(self._source)
        self._log.close()

    def drain(self) -> None:
        """Copy what is left of the output."""
        while not self._at_end and self.pump(0.2):
            pass

    def _copy(self, chunk: bytes) -> None:
        self._log.write(chunk)
        self._log.flush()
        while chunk and self._console is not None:
            try:
                chunk = chunk[os.write(self._console, chunk) :]
            except OSError:
                self._console = None  # whoever watched has gone; the log goes on, and so does the training


def _terminal() -> tuple[int, int]:
    """Return both ends of a pseudo-terminal as wide as ours."""
    ours, theirs = pty.openpty()
    size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    return ours, theirs
