"""Rows that are read while others are still being written: which ones, and when.

A row's values must not depend on when it has come, and rows that share a forward pass change each other's by
rounding. So rows are read in units that are known beforehand, each once all of its rows are there. Where a
model is sharded, every process runs as many passes as the others. So the main process tells all of them what
has come, and each reads as many of its units as every other one can, in the order in which they were whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from rlt.records import Completion

Unit = Sequence[int]
"""Consecutive rows of a process, counted from 0, that share forward passes with each other alone."""
Read = Callable[[Sequence[Unit], Sequence[Completion]], None]
"""Takes units of this process, and the completions of all their rows. Every process calls it, at the same
time and with as many units as the others."""
MOST_AT_ONCE = 8
"""Rows of a process that are read before looking again for what has come; a larger unit is read by itself."""


def units_of(num_rows: int, most: int | None) -> list[Unit]:
    """Return rows in as few units as hold `most` rows at most, all of nearly equal size; None: in one."""
    count = 1 if most is None else -(-num_rows // most)
    edges = [num_rows * i // count for i in range(count + 1)]
    return [range(*edge) for edge in pairwise(edges)]


class Rounds:
    """The rows of all processes on their way from the engine to those who read them.

    Rows are counted over all processes; each process holds as many, in the same `units`.
    """

    def __init__(self, units: Sequence[Unit], num_processes: int) -> None:
        self._rows_each = sum(map(len, units))
        self._unit_of = [unit for unit in units for _ in unit]
        self._missing = set(range(num_processes * self._rows_each))
        self._whole: list[deque[Unit]] = [deque() for _ in range(num_processes)]
        self._most = max(1, MOST_AT_ONCE // max(map(len, units)))

    def add(self, rows: Sequence[int]) -> None:
        """Take note of rows that have come, in their order."""
        for row in rows:
            self._missing.remove(row)
            process, own = divmod(row, self._rows_each)
            unit = self._unit_of[own]
            if self._missing.isdisjoint(process * self._rows_each + member for member in unit):
                self._whole[process].append(unit)

    @property
    def have_all_come(self) -> bool:
        """Whether nothing is missing."""
        return not self._missing

    @property
    def are_ready(self) -> bool:
        """Whether every process has a unit to read."""
        return all(self._whole)

    def next(self) -> list[list[Unit]]:
        """Return the units that each process reads now, as many each, and no longer wait."""
        count = min(self._most, *map(len, self._whole))
        return [[units.popleft() for _ in range(count)] for units in self._whole]
