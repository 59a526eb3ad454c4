"""The picture of one step of timeline.jsonl: a row for each server and each training process."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlt.reporting.curves import draw
from rlt.surroundings.timeline import PHASES, WAIT, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {
    "read": "#8a8a8a",
    "sync": "#7d4fa3",
    "generate": "#2d8050",
    "reward": "#c2571a",
    "reference": "#d9a441",
    "update": "#1f5fa8",
    WAIT: "#e4e2dd",
}


def median_step(timelines: Sequence[Timeline]) -> Timeline:
    """Return the step whose length is the median, the shorter one of two."""
    by_length = sorted(timelines, key=lambda step: step.seconds)
    return by_length[(len(by_length) - 1) // 2]


def _place(lane: str) -> tuple[bool, list[int]]:
    """Return what lanes are sorted by: servers first, `process 2` before `process 10`."""
    return lane.startswith("process"), [int(number) for number in re.findall(r"\d+", lane)]


def draw_timeline(step: Timeline, gpus: Mapping[str, str]) -> str:
    """Return a step as SVG: a row for each server and each process, time to the right.

    `gpus` are those of servers by their address. Where a lane waits and computes at the same time, what it
    computes is drawn over its waiting.
    """
    from matplotlib.patches import Patch

    lanes = sorted({span.lane for span in step.spans}, key=_place)
    more = {f"server {address.partition('://')[2]}": f", GPU {names}" for address, names in gpus.items()}
    phases = [WAIT, *(phase for phase in PHASES if phase != WAIT)]
    drawn = [phase for phase in phases if any(span.phase == phase for span in step.spans)]

    def plot(axes: Axes) -> None:
        for phase in drawn:
            for height, lane in enumerate(lanes):
                mine = [s for s in step.spans if (s.lane, s.phase) == (lane, phase)]
                bars = [(s.begin, s.end - s.begin) for s in mine]
                axes.broken_barh(bars, (height - 0.38, 0.76), facecolor=_COLORS[phase], zorder=2)
        axes.set_yticks(range(len(lanes)), [lane + more.get(lane, "") for lane in lanes])
        axes.set_ylim(len(lanes) - 0.4, -0.6)
        axes.set_xlim(0, step.seconds)
        axes.set_xlabel("seconds")
        handles = [Patch(color=_COLORS[phase], label=PHASES[phase]) for phase in drawn]
        axes.legend(
            handles=handles, ncols=4, fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1)
        )

    return draw(plot, size=(9, 1.1 + 0.28 * len(lanes)))
