"""Where the weight sync over files keeps its versions, and their removal; free of torch, for the launcher."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

_VERSION = re.compile(r"weights-\d{6}-[0-9a-f]{8}(\.partial)?")


def sync_folder(output_dir: str, sync_dir: str | None) -> Path:
    """Return a run's own folder for the checkpoint sync; generation.sync_dir may be shared by runs."""
    output = Path(output_dir).resolve()
    if sync_dir is None:
        return output / "weight_sync"
    return Path(sync_dir).resolve() / f"{output.name}-{sha256(bytes(output)).hexdigest()[:8]}"


def remove_versions(folder: Path, keep: Path | None = None) -> None:
    """Delete the versions in a folder except one, half-written ones too; raises OSError."""
    for version in folder.glob("weights-*"):
        if version != keep and _VERSION.fullmatch(version.name):
            shutil.rmtree(version)


def remove_sync_folder(folder: Path) -> None:
    """Delete every version that can be deleted, and the folder if nothing else is in it."""
    with suppress(OSError):  # the run is over, and how it ended matters more
        remove_versions(folder)
        folder.rmdir()
