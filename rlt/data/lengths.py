"""Length policy: which rows fit, and a report of how long they are. Pure numbers, N rows.

Whoever has the tokenizer counts the tokens; nothing is loaded or cut here. A row that is too long is
found before any model is loaded, never in the middle of training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlt.errors import DataError

NUM_BINS = 5
BAR_WIDTH = 40


@dataclass(frozen=True)
class LengthRule:
    """One limit that every row has to keep.

    Example: `LengthRule("prompt tokens", [310, 4200], 2048, "max_prompt_length")`
    """

    what: str
    lengths_N: Sequence[int]
    limit: int
    setting: str
    """Where the limit comes from, for the messages."""

    def is_over(self, row: int) -> bool:
        """True if the row is longer than the limit."""
        return self.lengths_N[row] > self.limit


@dataclass(frozen=True)
class LengthReport:
    """How long the rows are under one rule; `str()` gives eight lines for the console."""

    what: str
    setting: str
    limit: int
    count: int
    num_over: int
    min: int
    median: float
    p90: int
    p99: int
    max: int
    histogram: tuple[tuple[int, int, int], ...]
    """(shortest, longest, rows) of bins of one width."""

    def __str__(self) -> str:
        """Return the numbers and a bar for each bin."""
        lines = [
            f"{self.what} of {self.count} rows, limit {self.limit} ({self.setting}): {self.num_over} over",
            f"  min {self.min} · median {self.median:g} · p90 {self.p90} · p99 {self.p99} · max {self.max}",
        ]
        most = max(rows for _, _, rows in self.histogram)
        width = len(str(self.max))
        for low, high, rows in self.histogram:
            bar = "█" * math.ceil(BAR_WIDTH * rows / most)
            lines.append(f"  {low:>{width}} to {high:>{width}} {bar:<{BAR_WIDTH}} {rows}")
        return "\n".join(lines)


@dataclass(frozen=True)
class LengthPlan:
    """What happens to each row. Rows are indices into the lists that were given."""

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    explanation_limits: Mapping[int, int]
    """Kept rows whose explanation must be cut -> tokens that remain of it."""
    reports: tuple[LengthReport, ...]
    """One per rule, of the lengths before anything was dropped or cut."""


def summarize_lengths(rule: LengthRule) -> LengthReport:
    """Return the report of one rule. p90 and p99 are nearest ranks: lengths that a row really has."""
    ordered = sorted(rule.lengths_N)
    if not ordered:
        raise DataError(f"there are no rows to measure {rule.what} of")

    def rank(share: float) -> int:
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

    return LengthReport(
        what=rule.what,
        setting=rule.setting,
        limit=rule.limit,
        count=len(ordered),
        num_over=sum(length > rule.limit for length in ordered),
        min=ordered[0],
        median=statistics.median(ordered),
        p90=rank(0.90),
        p99=rank(0.99),
        max=ordered[-1],
        histogram=_histogram(ordered),
    )


def plan_lengths(
    rules: Sequence[LengthRule], policy: str, *, explanation_lengths_N: Sequence[int] | None = None
) -> LengthPlan:
    """Return which rows are kept under data.on_long_row (`drop`, `truncate` or `error`).

    A row is too long if it breaks any rule. `truncate` needs `explanation_lengths_N`, the part of each
    row that may be cut (SFT); a row that would keep no token of its explanation is dropped instead,
    since nothing would be left to learn from.
    """
    reports = tuple(summarize_lengths(rule) for rule in rules)
    num_rows = reports[0].count
    assert all(report.count == num_rows for report in reports), "rules measure different rows"
    if policy == "truncate" and explanation_lengths_N is None:
        raise DataError("data.on_long_row=truncate works in SFT only; use drop or error")

    long_rows = [row for row in range(num_rows) if any(rule.is_over(row) for rule in rules)]
    if long_rows and policy == "error":
        raise DataError(_too_long(rules, long_rows, num_rows))
    limits: dict[int, int] = {}
    if policy == "truncate" and explanation_lengths_N is not None:
        for row in long_rows:
            excess = max(rule.lengths_N[row] - rule.limit for rule in rules)
            if (room := explanation_lengths_N[row] - excess) > 0:
                limits[row] = room
    dropped = tuple(row for row in long_rows if row not in limits)
    if len(dropped) == num_rows:
        raise DataError(f"no row is left: {_too_long(rules, long_rows, num_rows)}")
    gone = set(dropped)
    return LengthPlan(tuple(row for row in range(num_rows) if row not in gone), dropped, limits, reports)


def _histogram(ordered: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    width = max(math.ceil((ordered[-1] + 1) / NUM_BINS), 1)
    counts = [0] * NUM_BINS
    for length in ordered:
        counts[length // width] += 1
    return tuple((i * width, (i + 1) * width - 1, rows) for i, rows in enumerate(counts))


def _too_long(rules: Sequence[LengthRule], long_rows: Sequence[int], num_rows: int) -> str:
    first = long_rows[0]
    rule = next(rule for rule in rules if rule.is_over(first))
    return (
        f"{len(long_rows)} of {num_rows} rows are too long, first row {first + 1} (of those loaded) "
        f"with {rule.lengths_N[first]} {rule.what} where {rule.setting} allows {rule.limit}; raise the "
        "limit, or see data.on_long_row"
    )
