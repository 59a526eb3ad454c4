"""Stops or kills the Python process that reaches a moment, from inside: no test has to be faster than it.

Python imports this at its start where the folder is on PYTHONPATH (`moments.py` puts it there). The process
sends itself the signal right after the file operation that brings the moment about: a file flushed, closed or
renamed into its place, a folder made. Nothing of the project is replaced: `open`, `os.replace` and `os.mkdir`
are wrapped, and do what they did.
"""

from __future__ import annotations

import builtins
import fnmatch
import glob
import io
import json
import os
import re
import signal
from typing import Any

MOMENT: dict[str, Any] = json.loads(os.environ.get("RLT_TEST_MOMENT", "{}"))
has_come = False


def is_watched(path: Any) -> bool:
    """Whether a path is one that the moment names."""
    if has_come or not isinstance(path, str | os.PathLike):
        return False
    return fnmatch.fnmatch(os.path.abspath(os.fspath(path)), MOMENT["path"])


def look() -> None:
    """Send the signal if so many paths are there, with so many lines and the text, in the last of them."""
    global has_come
    found = sorted(glob.glob(MOMENT["path"]))
    if len(found) < MOMENT["paths"] or has_come:
        return
    if MOMENT["lines"] or MOMENT["text"]:
        with really_open(found[-1], "rb") as file:
            held = file.read()
        if held.count(b"\n") < MOMENT["lines"] or not re.search(MOMENT["text"].encode(), held):
            return
    has_come = True
    os.kill(os.getpid(), MOMENT["signal"])


class Watched(io.BufferedWriter):
    """A file whose writer looks after every flush; with `torn`, a part of the last write is missing."""

    def write(self, data: Any) -> int:
        """Write, or tear: the line that would bring the moment is cut, and the process killed."""
        if MOMENT["torn"] and not has_come:
            with really_open(MOMENT["path"], "rb") as file:
                lines = file.read().count(b"\n") + bytes(data).count(b"\n")
            if lines >= MOMENT["lines"]:
                self.raw.write(bytes(data)[: 2 * len(data) // 3])
                os.kill(os.getpid(), signal.SIGKILL)
        return super().write(data)

    def flush(self) -> None:
        """Hand the bytes on, then look."""
        super().flush()
        look()

    def close(self) -> None:
        """Close, then look: closing a text file flushes what lies below it without a call of `flush`."""
        super().close()
        look()


def watching_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    """`open`, with a `Watched` in place of the writer of a file that is written or appended to."""
    if mode.strip("bt") not in ("a", "w") or not is_watched(file):
        return really_open(file, mode, *args, **kwargs)
    watched = Watched(io.FileIO(file, mode.strip("bt")))
    return watched if "b" in mode else io.TextIOWrapper(watched, encoding="utf-8")


def watching_replace(src: Any, dst: Any, **kwargs: Any) -> None:
    """`os.replace`, then a look."""
    really_replace(src, dst, **kwargs)
    if is_watched(dst):
        look()


def watching_mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
    """`os.mkdir`, then a look."""
    really_mkdir(path, *args, **kwargs)
    if is_watched(path):
        look()


if MOMENT:
    really_open, really_replace, really_mkdir = builtins.open, os.replace, os.mkdir
    builtins.open = io.open = watching_open
    os.replace, os.mkdir = watching_replace, watching_mkdir
