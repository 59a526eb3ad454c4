"""timeline.jsonl: what each training process and each generation server did in each logged step.

A line is `{"step", "seconds", "spans": [[lane, phase, begin, end], …]}`, seconds since the step's begin. The
phases of a lane may overlap.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.errors import DataError
from rlt.io import set_aside, write_text
from rlt.surroundings.timeline import Span, Timeline

NAME = "timeline.jsonl"
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
    row = {"step": timeline.step, "seconds": round(timeline.seconds, _DIGITS), "spans": spans}
    return json.dumps(row, allow_nan=False) + "\n"


def read_timelines(path: Path) -> list[Timeline]:
    """Return the steps of a timeline.jsonl; a last line that a crash cut short is skipped."""
    found = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            spans = tuple(Span(str(a), str(b), float(c), float(d)) for a, b, c, d in row["spans"])
            found.append(Timeline(int(row["step"]), float(row["seconds"]), spans))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline after it
                break
            raise DataError(f"{path} line {number} is not a step's timeline ({error}); remove it") from error
    return found
