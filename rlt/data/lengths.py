"""Length policy: which rows fit, and a report of how long they are.

A row that is too long is found before any model is loaded, never in the middle of training. The caller, which
has the tokenizer, passes a function for a row's length; nothing is encoded here.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from rlt.config.schema import DataSettings
from rlt.data.kept import KeptRows
from rlt.errors import DataError

logger = logging.getLogger(__name__)
T = TypeVar("T")

NUM_BINS = 5
"""Of the report in the console."""
BAR_WIDTH = 40
LAST_TOKENS = 1024
"""Of a row of SFT under data.shortest: the logits of whole long rows would not fit a small machine."""


@dataclass(frozen=True)
class LengthRule(Generic[T]):
    """One limit that every row has to keep.

    Example: `LengthRule("prompt tokens", lambda row: len(row.prompt_ids), 2048, "max_prompt_length")`
    """

    what: str
    measure: Callable[[T], int]
    limit: int
    setting: str
    """Where the limit comes from, for the messages."""


@dataclass(frozen=True)
class LengthReport:
    """How long the rows are under one rule; `str()` gives seven lines for the console."""

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


def summarize_lengths(rule: LengthRule[T], items: Sequence[T]) -> LengthReport:
    """Return the report of one rule."""
    ordered = sorted(rule.measure(item) for item in items)
    return LengthReport(
        what=rule.what,
        setting=rule.setting,
        limit=rule.limit,
        count=len(ordered),
        num_over=sum(length > rule.limit for length in ordered),
        min=ordered[0],
        median=statistics.median(ordered),
        p90=nearest_rank(ordered, 0.90),
        p99=nearest_rank(ordered, 0.99),
        max=ordered[-1],
        histogram=histogram(ordered, NUM_BINS),
    )


def fit_lengths(
    rows: KeptRows[T],
    rules: Sequence[LengthRule[T]],
    data: DataSettings,
    shorten: Callable[[T, int], T | None] | None = None,
) -> KeptRows[T]:
    """Return the rows that keep every rule, under data.on_long_row; log how long they were before.

    For data.on_long_row=truncate, `shorten(item, excess)` returns an item that is `excess` tokens shorter, or
    None where too little would be left of it; such a row is dropped.
    """
    reports = [summarize_lengths(rule, rows.values) for rule in rules]
    for report in reports:
        logger.info("%s", report)
    longest = " and ".join(f"{report.max} {report.what}" for report in reports if report.num_over)

    def fit(item: T) -> T:
        excess = [rule.measure(item) - rule.limit for rule in rules]
        if max(excess, default=0) <= 0:
            return item
        if data.on_long_row == "truncate" and shorten is not None:
            shortened = shorten(item, max(excess))
            if shortened is not None:
                return shortened
        rule = next(rule for rule, over in zip(rules, excess, strict=True) if over > 0)
        raise DataError(f"{rule.measure(item)} {rule.what} where {rule.setting} allows {rule.limit}")

    return rows.fit(fit, data, longest)


def keep_shortest(rows: KeptRows[T], measure: Callable[[T], int], data: DataSettings) -> KeptRows[T]:
    """Return the data.shortest shortest rows in their old order, all of them where that is null."""
    if data.shortest is None or len(rows.items) <= data.shortest:
        return rows
    chosen = set(sorted(rows.items, key=lambda number: measure(rows.items[number]))[: data.shortest])
    logger.info("%s: the %d shortest of %d rows are used", rows.source, len(chosen), len(rows.items))
    return replace(rows, items={number: item for number, item in rows.items.items() if number in chosen})


def nearest_rank(ordered: Sequence[int], share: float) -> int:
    """Return the smallest length that a share of the rows does not exceed: one that a row really has."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def histogram(ordered: Sequence[int], num_bins: int) -> tuple[tuple[int, int, int], ...]:
    """Return (shortest, longest, rows) of bins of one width from 0 on."""
    width = max(math.ceil((ordered[-1] + 1) / num_bins), 1)
    counts = [0] * num_bins
    for length in ordered:
        counts[length // width] += 1
    return tuple((i * width, (i + 1) * width - 1, rows) for i, rows in enumerate(counts))
