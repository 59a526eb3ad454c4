"""The name of a process, as `ps -o comm`, `top` and py-spy show it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_COMM = Path("/proc/self/comm")
_LONGEST = 15


def name_process(name: str) -> None:
    """Give this process a name; nothing where that cannot be.

    Its command line stays as it is: changing that one would wipe the marks that launchers look for.
    """
    with suppress(OSError):
        _COMM.write_text(name[:_LONGEST])
