"""The child process of a grader, seen from outside: started when it is needed, and again after its end."""

from __future__ import annotations

import json
import os
import select
import shlex
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

Asked = tuple[str, ...]
"""Texts that one verdict depends on."""
OURS = "rlt.tasks.grading_process"


class GradingChild:
    """One process of a grading module, for one thread at a time; it may take `seconds` of CPU time a verdict.

    `paths` are searched for packages before those of this process, `arguments` follow the seconds.
    """

    def __init__(
        self,
        seconds: float,
        module: str = OURS,
        *,
        arguments: Sequence[str] = (),
        paths: Sequence[str] = (),
    ) -> None:
        self._seconds = seconds
        self._command = [sys.executable, "-m", module, str(seconds), *arguments]
        self._paths = list(paths)
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def ask(self, asked: Sequence[Asked]) -> list[bool]:
        """Return the first verdicts: all, or those before the one that ended the child.

        All questions lie in the pipe before the first answer is read: they should not fill it.
        """
        process = self._started()
        assert process.stdin is not None
        verdicts: list[bool] = []
        with suppress(BrokenPipeError):  # what it answered before its end can still be read
            process.stdin.write(b"".join(json.dumps(texts).encode() + b"\n" for texts in asked))
            process.stdin.flush()
        while len(verdicts) < len(asked) and (line := self._read_line(self._seconds * _WALL_PER_CPU)):
            verdicts.append(bool(json.loads(line)))
        if len(verdicts) < len(asked):
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
            paths = os.pathsep.join([*self._paths, *sys.path])  # the child finds what this process finds
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            if not self._read_line(START_SECONDS):
                self.end()
                raise ModelError(
                    f"a grader of answers does not start: see what `{self._line()}` says; it waits for input "
                    "once all of its packages are there"
                )
        return self._process

    def _line(self) -> str:
        """Return the command as one types it."""
        paths = f"PYTHONPATH={shlex.quote(os.pathsep.join(self._paths))} " if self._paths else ""
        return paths + shlex.join(["python", *self._command[1:]])

    def _read_line(self, seconds: float) -> bytes:
        """Return a line of the child; empty when it ends or says nothing in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = running() + seconds
        while b"\n" not in self._read:
            left = max(0.0, deadline - running())
            # At its end a select that was suspended finds nothing, however much time is left.
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            if not ready and running() < deadline:
                continue
            more = os.read(self._process.stdout.fileno(), 2**16) if ready else b""
            if not more:
                return b""
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line
