"""How long the parts of a run take that follow one another."""

from __future__ import annotations

from collections import defaultdict

from rlt.surroundings.clock import since_boot


class Laps:
    """Counts the seconds of each phase; one ends where the next begins."""

    def __init__(self, phase: str) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._phase, self._entered = phase, since_boot()

    def enter(self, phase: str) -> None:
        """Begin a phase, for the first time or again."""
        now = since_boot()
        self._spent[self._phase] += now - self._entered
        self._phase, self._entered = phase, now

    def spent(self) -> dict[str, float]:
        """Return the seconds of each phase so far, in the order in which they were entered first."""
        self.enter(self._phase)
        return {phase: round(seconds, 2) for phase, seconds in self._spent.items()}
