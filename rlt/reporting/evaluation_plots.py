"""Plots of an evaluation: accuracies with their intervals, and how long the answers are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlt.reporting.curves import COLORS, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, WRONG, CUT = OUTCOMES = ("right", "wrong", "cut")
"""How an answer ended; `cut` is one that its length ended before it was right."""
_COLORS = {RIGHT: COLORS[0], WRONG: COLORS[1], CUT: "#8a8a8a"}
_NUM_BINS = 30


@dataclass(frozen=True)
class Accuracy:
    """A line of the plot, in percent; `source` is that of a published value, "" for a measured one."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    source: str = ""


def draw_accuracies(title: str, lines: Sequence[Accuracy]) -> str:
    """Return accuracies one above the other as SVG: ours with their intervals, published ones hollow."""

    def plot(axes: Axes) -> None:
        for height, line in enumerate(lines):
            if line.interval:
                axes.hlines(height, *line.interval, color=COLORS[0], linewidth=1.6)
            face = "white" if line.source else COLORS[0]
            edge = "#555" if line.source else COLORS[0]
            axes.plot(
                line.value,
                height,
                "D" if line.source else "o",
                color=edge,
                markerfacecolor=face,
                markersize=5,
            )
        names = [f"{line.name} ({line.source})" if line.source else line.name for line in lines]
        axes.set_yticks(range(len(lines)), names)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy, %")
        axes.set_title(title, loc="left", fontweight="bold")

    return draw(plot, size=(5.8, 0.85 + 0.24 * len(lines)))


def draw_lengths(title: str, lengths: Mapping[str, Sequence[int]]) -> str:
    """Return a histogram of answers' lengths in tokens as SVG, stacked by outcome."""
    longest = max(max(of, default=0) for of in lengths.values())
    width = math.ceil((longest + 1) / _NUM_BINS)
    edges = range(0, longest + width + 1, width)
    shown = [outcome for outcome in OUTCOMES if lengths.get(outcome)]

    def plot(axes: Axes) -> None:
        axes.hist(
            [lengths[outcome] for outcome in shown],
            bins=list(edges),
            stacked=True,
            color=[_COLORS[outcome] for outcome in shown],
            label=[f"{outcome} ({len(lengths[outcome]):,})" for outcome in shown],
        )
        axes.set_xlabel("tokens")
        axes.set_ylabel("answers")
        axes.set_title(title, loc="left", fontweight="bold")
        axes.legend(fontsize=6.5, frameon=False, handlelength=1.2)

    return draw(plot, size=(3.6, 2.3))
