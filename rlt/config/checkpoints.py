"""The checkpoints of a run directory, whole or not: an interrupted save leaves one without its last file.

Imports nothing heavy, since launchers look too; the names are transformers', which a test compares.
"""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "checkpoint"
LAST_FILE = "trainer_state.json"
"""What Trainer writes last: a checkpoint without it is not whole."""


def checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a run directory with their steps, whole or not."""
    found = ((re.fullmatch(rf"{PREFIX}-(\d+)", p.name), p) for p in directory.glob("*/"))
    return [(int(match[1]), p) for match, p in found if match]


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has the file that transformers writes last."""
    return (checkpoint / LAST_FILE).is_file()


def last_whole(directory: Path) -> Path | None:
    """Return the newest whole checkpoint of a run directory, None where there is none."""
    found = max((c for c in checkpoints(directory) if is_whole(c[1])), default=None)
    return found and found[1]


def named_checkpoint(resume_from: str | None, directory: Path) -> Path | None:
    """Return the checkpoint that a resolved `resume_from` names, whole or not; None where it names none."""
    if resume_from is None:
        return None
    return last_whole(directory) if resume_from == "latest" else Path(resume_from)
