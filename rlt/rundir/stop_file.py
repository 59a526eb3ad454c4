"""How a run is asked to save and leave: by a file in its directory, which reaches it through any launcher."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

NAME = "stop"
LAUNCHED_VARIABLE = "RLT_LAUNCHED"
"""Environment variable with the time at which the launcher began, in seconds since the machine's boot."""


def ask_to_stop(directory: str | Path) -> None:
    """Ask the run in a directory for a checkpoint after the step it is in, and its end; may raise OSError."""
    (Path(directory) / NAME).touch()


def asked_to_stop(directory: Path) -> bool:
    """Whether somebody has asked."""
    return (directory / NAME).exists()


def forget_request(directory: Path) -> None:
    """Remove what an earlier run was asked."""
    with suppress(OSError):
        (directory / NAME).unlink()
