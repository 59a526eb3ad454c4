"""The child process of a grader, seen from outside: started when it is needed, and again after its end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from rlt.errors import ModelError
from rlt.surroundings.clock import running

START_SECONDS = 120.0
"""Wall time for the child to import computer algebra."""
_WALL_PER_CPU = 20.0
"""Wall seconds to wait for one CPU second of the child, on a busy machine."""

Pair = tuple[str, str]
"""Answer and reference."""


class GradingChild:
    """One grading_process.py, which may take `seconds` of CPU time for a pair; for one thread at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def ask(self, pairs: Sequence[Pair]) -> list[bool]:
        """Return the verdicts of the first pairs: of all, or of those before the one that ended the child.

        All questions lie in the pipe before the first answer is read: they should not fill it.
        """
        process = self._started()
        assert process.stdin is not None
        verdicts: list[bool] = []
        with suppress(BrokenPipeError):  # what it answered before it ended over a pair can still be read
            process.stdin.write(b"".join(json.dumps(pair).encode() + b"\n" for pair in pairs))
            process.stdin.flush()
        while len(verdicts) < len(pairs) and (line := self._read_line(self._seconds * _WALL_PER_CPU)):
            verdicts.append(bool(json.loads(line)))
        if len(verdicts) < len(pairs):
            self.end()
        return verdicts

    def end(self) -> None:
        """End the process, if there is one."""
        process, self._process, self._read = self._process, None, b""
        if process is None:
            return
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        with suppress(BrokenPipeError):  # of a question that was never sent
            process.stdin.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.end()
        if self._process is None:
            command = [sys.executable, "-m", "rlt.tasks.grading_process", str(self._seconds)]
            paths = os.pathsep.join(sys.path)  # the child finds what this process finds
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            if not self._read_line(START_SECONDS):
                self.end()
                raise ModelError(
                    "the grader of answers does not start: see what `python -m rlt.tasks.grading_process 5` "
                    "says; it waits for input once the package math-verify is there"
                )
        return self._process

    def _read_line(self, seconds: float) -> bytes:
        """Return a line of the child; empty when it ends or says nothing in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = running() + seconds
        while b"\n" not in self._read:
            left = max(0.0, deadline - running())
            # At its end a select that was suspended finds nothing, however much time of ours is left.
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            if not ready and running() < deadline:
                continue
            more = os.read(self._process.stdout.fileno(), 2**16) if ready else b""
            if not more:
                return b""
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line
