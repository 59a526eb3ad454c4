"""now.json: what a training run is doing at this moment, for people who look (`python -m rlt.status`).

`{"phase", "since", "step", "of", "written"}`: seconds since 1970; `step` is the one under way. A run never
reads it. It goes with a run that finished; of any other it says what it was doing last.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rlt.reporting.files import write_json

log = logging.getLogger(__name__)

NAME = "now.json"
_REPEAT_AFTER = 1.0
"""Seconds before the same phase of a later step is written: fast steps must not wait for a file."""


class Now:
    """The now.json of a run directory, written by the main process."""

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / NAME
        self._phase = ""
        self._since = self._written = 0.0
        self._is_on = True

    def enter(self, phase: str, step: int | None = None, of: int | None = None) -> None:
        """Write what begins now; a disk that takes no more ends the telling, not the run."""
        if not self._is_on:
            return
        now = time.time()
        if phase != self._phase:
            self._phase, self._since = phase, now
        elif now - self._written < _REPEAT_AFTER:
            return
        self._written = now
        told = {
            "phase": phase,
            "since": round(self._since, 2),
            "step": step,
            "of": of,
            "written": round(now, 2),
        }
        try:
            write_json(self._path, told)
        except OSError as error:
            log.warning("%s is not written any more (%s)", self._path, error.strerror)
            self._is_on = False

    def clear(self) -> None:
        """Remove the file, after a run that has nothing left to do."""
        self._path.unlink(missing_ok=True)
