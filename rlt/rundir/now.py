"""now.json: what a run is doing at this moment, for people who look (`python -m rlt.status`).

`{"phase", "since", "step", "of", "written", "spent", "boot", "entered"}`: seconds since 1970, and `entered`,
which no step of the wall clock moves, since the boot named by `boot`; `step` is the one under way, and
`spent` how long each phase before this one took. A run reads it for `spent` alone. It goes with a run that
finished; of any other it says what it was doing last.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from rlt.io import write_json
from rlt.surroundings.clock import boot, since_boot

log = logging.getLogger(__name__)

NAME = "now.json"
LOADING = "loading"
"""The phase before the first step."""
_REPEAT_AFTER = 1.0
"""Seconds before the same phase of a later step is written: fast steps must not wait for a file."""


class NowJson(TypedDict):
    """What now.json holds. Times are seconds."""

    phase: str
    since: float
    """Since 1970, when the phase was entered."""
    step: int | None
    """The one under way."""
    of: int | None
    written: float
    spent: dict[str, float]
    """In each phase before this one."""
    boot: NotRequired[str]
    entered: NotRequired[float]
    """Since the boot that `boot` names; no change of the wall clock moves it."""


class Now:
    """The now.json of a run directory, written by the main process."""

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / NAME
        self._written = 0.0
        self._is_on = True
        earlier = read_now(Path(directory))  # of this run: an earlier start has left its file
        self._phase = earlier["phase"] if earlier else ""
        if earlier and "entered" in earlier and earlier.get("boot") == boot():
            self._entered = earlier["entered"]
        else:
            self._entered = since_boot() if earlier else 0.0
        self._since = earlier["since"] if earlier else 0.0
        self._spent = earlier["spent"] if earlier else {}

    def enter(self, phase: str, step: int | None = None, of: int | None = None) -> None:
        """Write what begins now; if the disk is full, now.json is no longer updated and the run continues."""
        if not self._is_on:
            return
        now = since_boot()
        if phase != self._phase:
            self._spent = self.spent(now)
            self._phase, self._entered, self._since = phase, now, time.time()
        elif now - self._written < _REPEAT_AFTER:
            return
        self._written = now
        state: NowJson = {
            "phase": phase,
            "since": round(self._since, 2),
            "step": step,
            "of": of,
            "written": round(time.time(), 2),
            "spent": self._spent,
            "boot": boot(),
            "entered": round(self._entered, 2),
        }
        try:
            write_json(self._path, state)
        except OSError as error:
            log.warning("%s is not written any more (%s)", self._path, error.strerror)
            self._is_on = False
            with suppress(OSError):  # readers would take the run to be stuck
                self._path.unlink()

    def spent(self, until: float | None = None) -> dict[str, float]:
        """Return the seconds of each phase so far, in the order in which they were entered first."""
        if not self._phase:
            return {}
        last = (since_boot() if until is None else until) - self._entered
        return {**self._spent, self._phase: round(self._spent.get(self._phase, 0.0) + last, 2)}

    def clear(self) -> None:
        """Remove the file, of an earlier run or of one that has nothing left to do."""
        self._path.unlink(missing_ok=True)
        self._phase, self._spent = "", {}


def read_now(directory: Path) -> NowJson | None:
    """Return the last state that a run wrote, None if there is none or it cannot be read."""
    try:
        state = json.loads((directory / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = {"phase", "since", "step", "written", "spent"}
    return cast(NowJson, state) if isinstance(state, dict) and known <= state.keys() else None


def seconds_in_phase(state: NowJson) -> float:
    """Return how long the phase has lasted; by the wall clock if another machine wrote the state."""
    if "entered" in state and state.get("boot") == boot():
        seconds = since_boot() - state["entered"]
    else:
        seconds = time.time() - state["since"]
    return round(max(seconds, 0.0), 1)
