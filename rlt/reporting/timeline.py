"""timeline.jsonl: what each training process and each generation server did in each logged step; its picture.

A line is `{"step", "seconds", "spans": [[lane, phase, begin, end], …]}`, seconds since the step's begin. The
phases of a lane may overlap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.errors import DataError
from rlt.io import set_aside, write_text
from rlt.reporting.curves import draw
from rlt.surroundings.timeline import PHASES, WAIT, Span, Timeline

NAME = "timeline.jsonl"
_COLORS = {
    "read": "#8a8a8a",
    "sync": "#7d4fa3",
    "generate": "#2d8050",
    "reward": "#c2571a",
    "reference": "#d9a441",
    "update": "#1f5fa8",
    WAIT: "#e4e2dd",
}
_DIGITS = 4
"""Of a second: tenths of a millisecond."""


class TimelineFile(TrainerCallback):
    """Appends steps to timeline.jsonl.

    An earlier run's file is set aside; a resumed run cuts the steps that it repeats.
    """

    def __init__(self, directory: str | Path) -> None:
        self._path = Path(directory) / NAME

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Make the file fit a run that starts after the state's step."""
        if not state.is_world_process_zero:
            return
        if state.global_step == 0:
            set_aside(self._path)
        elif self._path.exists():
            kept = [step for step in read_timelines(self._path) if step.step <= state.global_step]
            write_text(self._path, "".join(map(_line, kept)))

    def write(self, timeline: Timeline) -> None:
        """Append one step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(timeline))


def _line(timeline: Timeline) -> str:
    spans = [[s.lane, s.phase, round(s.begin, _DIGITS), round(s.end, _DIGITS)] for s in timeline.spans]
    told = {"step": timeline.step, "seconds": round(timeline.seconds, _DIGITS), "spans": spans}
    return json.dumps(told, allow_nan=False) + "\n"


def read_timelines(path: Path) -> list[Timeline]:
    """Return the steps of a timeline.jsonl; a last line that a crash cut short is skipped."""
    found = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            told = json.loads(line)
            spans = tuple(Span(str(a), str(b), float(c), float(d)) for a, b, c, d in told["spans"])
            found.append(Timeline(int(told["step"]), float(told["seconds"]), spans))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline after it
                break
            raise DataError(f"{path} line {number} is not a step's timeline ({error}); remove it") from error
    return found


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
