"""The rows of one source on their way to a stage, with every row that was skipped and why.

Each step (reading, laying out, fitting the lengths) either makes something of a row or refuses it with a
DataError. What is refused keeps its place in the source, whatever was skipped before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from rlt.config.schema import DataSettings
from rlt.errors import DataError

logger = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")
Watch = Callable[[Sequence[Any]], Iterable[Any]]
"""Goes through rows, to show the progress."""

NUM_SHOWN = 5


@dataclass(frozen=True)
class BadRow:
    """A row that was skipped."""

    source: str
    row: int
    """Its place, counted from 1: the line of a jsonl or csv file, the row of everything else."""
    reason: str


@dataclass(frozen=True)
class Overlap:
    """A row that shares text with a question of a benchmark, or repeats an earlier row."""

    source: str
    row: int
    """As in `BadRow`."""
    set: str
    """The benchmark, or REPEATED."""
    of: str
    """Which question or row, and the shared words."""
    dropped: bool


REPEATED = "earlier rows"
"""The set of rows that repeat another of their own source."""


@dataclass(frozen=True)
class _Fault:
    what: str
    remedy: str
    skip: str
    """The setting that skips such rows."""


_BAD = _Fault("bad", "correct it", "data.on_bad_row=skip")
_LONG = _Fault("too long", "raise the limit", "data.on_long_row=drop")


@dataclass(frozen=True)
class KeptRows(Generic[T]):
    """What was made of the rows of a source so far."""

    source: str
    unit: str
    """What the numbers count: `line` or `row`."""
    items: Mapping[int, T]
    """By row number, in the order of the source."""
    total: int
    """Rows of the source, before skipping and before the choice of a subset."""
    skipped: tuple[BadRow, ...] = ()
    places: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """Rows of a source with several files: file and number there, by row number."""
    overlaps: tuple[Overlap, ...] = ()
    """What data.decontaminate and data.deduplicate have found."""
    numbers: Sequence[int] = ()
    """The numbers of all rows of the source, in their order; empty: 1 to `total`."""

    @property
    def positions(self) -> list[int]:
        """The place of each item among all rows of the source, counted from 0, whatever was skipped."""
        place_of = {number: i for i, number in enumerate(self.numbers or range(1, self.total + 1))}
        return [place_of[number] for number in self.items]

    @property
    def values(self) -> list[T]:
        """The items in their order."""
        return list(self.items.values())

    def map(self, make: Callable[[T], U]) -> KeptRows[U]:
        """Return the same rows with what `make` makes of each."""
        made = {number: make(item) for number, item in self.items.items()}
        return self._with(made, self.skipped)

    def refused(self, number: int, reason: str) -> BadRow:
        """Return one of the rows as one that is skipped."""
        source, row = self.places.get(number, (self.source, number))
        return BadRow(source, row, reason)

    def lay_out(self, make: Callable[[T], U], data: DataSettings, watch: Watch = iter) -> KeptRows[U]:
        """Return what `make` makes of each row; data.on_bad_row says what becomes of those it refuses."""
        return self._convert(make, _BAD, data.on_bad_row == "error", watch)

    def fit(self, make: Callable[[T], U], data: DataSettings, longest: str) -> KeptRows[U]:
        """Return the same where `make` refuses rows that are too long, under data.on_long_row.

        `longest` says how long the longest one is, for the message: what the limit has to become.
        """
        fault = replace(_LONG, remedy=f"{_LONG.remedy} (the longest has {longest})")
        return self._convert(make, fault, data.on_long_row == "error", iter)

    def _convert(self, make: Callable[[T], U], fault: _Fault, stop: bool, watch: Watch) -> KeptRows[U]:
        made: dict[int, U] = {}
        refused: list[BadRow] = []
        for number, item in watch(list(self.items.items())):
            try:
                made[number] = make(item)
            except DataError as error:
                refused.append(self.refused(number, str(error)))
        if refused and stop:
            skip = f", or skip such rows with {fault.skip}" if made else ""  # else no row would be left
            raise DataError(f"{self._first(refused, fault)}; {fault.remedy}{skip}")
        if not made:
            raise DataError(f"no row is left: {self._first(refused, fault)}; {fault.remedy}")
        if refused:
            logger.warning("%s", self._listed(refused))
        return self._with(made, (*self.skipped, *refused))

    def _with(self, made: Mapping[int, U], skipped: tuple[BadRow, ...]) -> KeptRows[U]:
        return KeptRows(
            self.source,
            self.unit,
            made,
            self.total,
            skipped,
            places=self.places,
            overlaps=self.overlaps,
            numbers=self.numbers,
        )

    def _first(self, refused: Sequence[BadRow], fault: _Fault) -> str:
        first, others = refused[0], refused[1:]
        more = ""
        if others:
            shown = ", ".join(str(row.row) for row in others[:NUM_SHOWN])
            dots = ", …" if len(others) > NUM_SHOWN else ""
            rows = "row is" if len(others) == 1 else "rows are"
            more = f"; {len(others)} more {rows} {fault.what} ({self.unit} {shown}{dots})"
        return f"{first.source}, {self.unit} {first.row}: {first.reason}{more}"

    def _listed(self, refused: Sequence[BadRow]) -> str:
        shown = "".join(f"\n  {self.unit} {row.row}: {row.reason}" for row in refused[:NUM_SHOWN])
        more = f"\n  and {len(refused) - NUM_SHOWN} more" if len(refused) > NUM_SHOWN else ""
        return f"{self.source}: skipped {len(refused)} of {self.total} rows{shown}{more}"
