"""Whether an answer to a mathematical question is right.

math-verify compares the expressions. It runs in a child process (grading_process.py), so that no answer
can hang or crash this one, whichever thread asks.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
from types import TracebackType

from typing_extensions import Self

from rlt.errors import ModelError

logger = logging.getLogger(__name__)

START_SECONDS = 120.0
"""Wall time for the child to import computer algebra."""
_WALL_PER_CPU = 20.0
"""Wall seconds to wait for one CPU second of the child, on a busy machine."""


class MathGrader:
    """Grades one answer at a time; `seconds` is the CPU time that an answer may take.

    An answer that cannot be decided in that time, or that ends the child, is wrong; `undecided` counts them.
    May be called from several threads, and after `close`.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.undecided = 0
        self._seconds = seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether `answer` says the same as `reference`: the same text, or an equal expression."""
        if not answer.strip():
            return False
        if answer.strip() == reference.strip():
            return True
        with self._lock:
            line = self._ask(json.dumps([answer, reference]))
            if line:
                return bool(json.loads(line))
            self._end()
            self.undecided += 1
        if self.undecided.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
            logger.warning(
                "an answer could not be graded within %g CPU seconds and counts as wrong (%d so far): %.80r",
                self._seconds,
                self.undecided,
                answer,
            )
        return False

    def is_answer(self, text: str) -> bool:
        """Whether a text says anything."""
        return bool(text.strip())

    def close(self) -> None:
        """End the child process."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: str) -> bytes:
        """Return the child's answer, empty where it has none."""
        child = self._started()
        assert child.stdin is not None
        try:
            child.stdin.write(question.encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return b""
        return _read_line(child, self._seconds * _WALL_PER_CPU)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            command = [sys.executable, "-m", "rlt.tasks.grading_process", str(self._seconds)]
            paths = os.pathsep.join(sys.path)  # the child finds what this process finds
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            if not _read_line(self._child, START_SECONDS):
                self._end()
                raise ModelError(
                    "the grader of answers does not start: see what `python -m rlt.tasks.grading_process 5` "
                    "says; it waits for input once the package math-verify is there"
                )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


def _read_line(child: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Return a line of the child; empty when it ends or says nothing in time."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    return child.stdout.readline() if ready else b""
