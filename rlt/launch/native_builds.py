"""Locks that interrupted builds of DeepSpeed's native parts leave behind.

torch marks a build with a file named `lock` and waits for its end without a limit. A build that was
killed (a Ctrl-C during the first run) never removes its mark, and every later run would hang on it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from rlt.io import files_below

logger = logging.getLogger(__name__)


def remove_stale_locks(env: Mapping[str, str]) -> list[Path]:
    """Remove the locks of builds that nobody works on any more; return them."""
    root = Path(env.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    locks = sorted(path for path in files_below(root) if path.name == "lock")
    if not locks:
        return []
    busy, held = _working_folders(), _open_files()
    stale = [
        lock
        for lock in locks
        if os.path.realpath(lock.parent) not in busy and os.path.realpath(lock) not in held
    ]
    for lock in stale:
        lock.unlink(missing_ok=True)
        logger.warning("removed %s, left by an interrupted build: this run would have waited for it", lock)
    return stale


def _working_folders() -> set[str]:
    """Return the current folders of all processes that we may look at: a build's ninja works in its own."""
    folders = set()
    for process in psutil.process_iter():
        try:
            folders.add(os.path.realpath(process.cwd()))
        except (psutil.Error, OSError):
            continue  # gone in between, or somebody else's
    return folders


def _open_files() -> set[str]:
    """Return the open files of all processes that we may look at.

    Torch keeps a lock open from the moment that it makes it (`FileBaton`), so no age has to be asked for.
    """
    files = set()
    for process in psutil.process_iter():
        try:
            files.update(os.path.realpath(found.path) for found in process.open_files())
        except (psutil.Error, OSError):
            continue  # gone in between, or somebody else's
    return files
