"""Moments of a run at which its own process stops or ends: a test that waits for them is never too late.

A test that looks for a moment from outside and then sends a signal is in a race, which it loses on a busy
machine: the run is over before the signal is sent. See moment/sitecustomize.py for how the process does it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Moment:
    """What has come about on disk: as many paths, and in the last of them as many lines, and a text.

    The process stops itself, or ends, when it has written that: once.
    """

    path: str
    """A whole path, or a pattern of such (`*`)."""
    paths: int = 1
    lines: int = 0
    text: str = ""
    """A regular expression."""
    torn: bool = False
    """Whether the line that would bring the moment is cut in its middle."""
    signal: int = signal.SIGSTOP

    def environment(self) -> dict[str, str]:
        """Return the variables with which a Python process stops, or ends, at this moment."""
        paths = [str(Path(__file__).parent / "moment"), os.environ.get("PYTHONPATH", ""), str(ROOT)]
        return {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "RLT_TEST_MOMENT": json.dumps(asdict(self)),
        }


def run_until_killed(words: Sequence[str], moment: Moment) -> None:
    """Run train.py, which is killed with SIGKILL at a moment, and what it has started after it."""
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", **moment.environment()},
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            with suppress(ProcessLookupError):  # nothing is left of the group
                os.killpg(process.pid, signal.SIGKILL)
        told.seek(0)
        assert code == -signal.SIGKILL, f"the moment did not come:\n{told.read()[-4000:]}"


def is_pending(pid: int, number: int) -> bool:
    """Whether a signal waits for a stopped process to continue."""
    told = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$", told, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)
