"""Locks that interrupted builds of DeepSpeed's native parts leave behind.

torch marks a build with a file named `lock` and waits for its end without a limit. A build that was
killed (a Ctrl-C during the first run) never removes its mark, and every later run would hang on it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

MIN_AGE = 30.0
"""Seconds: a younger lock may belong to a build whose compiler has not started yet."""


def remove_stale_locks(env: Mapping[str, str]) -> list[Path]:
    """Remove the locks of builds that nobody works on any more; return them."""
    root = Path(env.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    locks = [lock for lock in sorted(root.glob("**/lock")) if time.time() - lock.stat().st_mtime > MIN_AGE]
    if not locks:
        return []
    busy = _working_folders()
    stale = [lock for lock in locks if os.path.realpath(lock.parent) not in busy]
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
