"""The page of a context budget: a histogram of the lengths, and tables. One file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlt.io import write_text
from rlt.pages import Figure, render
from rlt.reporting.curves import COLORS, draw
from rlt.text import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_budget_page(
    path: Path, title: str, advice: Sequence[str], histogram: str, tables: Sequence[tuple[str, Rows]]
) -> Path:
    """Return `path`, holding the page; `histogram` is SVG, `tables` are titles with their rows."""
    plot = Figure(histogram, "lengths", "orange: the budget; dashed: the other cutoffs")
    return write_text(path, render("budget.html.j2", title=title, advice=advice, lengths=plot, tables=tables))


def draw_lengths(bins: Sequence[tuple[int, int, int]], cutoffs: Sequence[int], max_length: int) -> str:
    """Return a histogram of (shortest, longest, rows) as SVG, with a line at every cutoff within it."""

    def plot(axes: Axes) -> None:
        lows, highs, rows = (list(column) for column in zip(*bins, strict=True))
        widths = [high - low + 1 for low, high in zip(lows, highs, strict=True)]
        axes.bar(lows, rows, width=widths, align="edge", color=COLORS[0], alpha=0.7)
        for cutoff in sorted({*cutoffs, max_length}):
            if cutoff <= highs[-1]:
                is_budget = cutoff == max_length
                color, line = (COLORS[1], "-") if is_budget else ("#555", "--")
                axes.axvline(cutoff, color=color, linestyle=line, linewidth=1.4 if is_budget else 0.8)
        axes.set_xlabel("tokens of a whole row")
        axes.set_ylabel("rows")

    return draw(plot, size=(7.0, 2.8))
