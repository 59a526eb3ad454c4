"""metrics.jsonl: one JSON line for everything the trainer logs, whatever tracker is on.

A line is `{"step", "epoch", "time", metrics in alphabetical order, "non_finite"?}`; `time` is seconds of
training, carried on over a resume. A NaN or infinity is null and its key is in `non_finite`. A step has
one line of training metrics and may have further ones (evaluation, the closing summary).
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.errors import DataError
from rlt.io import set_aside, to_json, write_text

log = logging.getLogger(__name__)

NAME = "metrics.jsonl"
MetricsRow = dict[str, Any]
"""`step`, `epoch` and `time`, then any metric by its name: a number, or null where it was none."""


class MetricsFile(TrainerCallback):
    """Appends each `on_log` dict to metrics.jsonl on the main process, flushed line by line.

    When training starts at step 0, an old file is set aside as metrics.jsonl.1; when it resumes, lines beyond
    the resumed step are cut, so no step is counted twice. `directory` defaults to the trainer's output_dir.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory else None
        self._path: Path | None = None
        self._started = 0.0

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the file ready before the first line. Evaluation before training has done so already."""
        if state.is_world_process_zero and self._path is None:
            self._open(args, state)

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line."""
        if not state.is_world_process_zero or not logs:
            return
        path = self._path or self._open(args, state)
        row = metrics_row(state.global_step, state.epoch, time.monotonic() - self._started, logs)
        with path.open("a", encoding="utf-8") as file:  # closing flushes: a crash loses no line
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def _open(self, args: TrainingArguments, state: TrainerState) -> Path:
        path = (self._directory or Path(args.output_dir or ".")) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        spent = prepare_metrics(path, state.global_step)
        self._started = time.monotonic() - spent
        self._path = path
        return path


def metrics_row(step: int, epoch: float | None, seconds: float, logs: MetricsRow) -> MetricsRow:
    """Return one line of metrics.jsonl as a dict."""
    row: MetricsRow = {"step": step, "epoch": epoch, "time": round(seconds, 3)}
    non_finite = []
    for key in sorted(logs):
        if key in row:  # transformers repeats the epoch among the metrics
            continue
        row[key], bad = to_json(logs[key])
        if bad:
            non_finite.append(key)
    return {**row, "non_finite": non_finite} if non_finite else row


def prepare_metrics(path: Path, step: int) -> float:
    """Return the seconds already spent, after making the file fit a run that starts after `step`."""
    if step == 0:
        if place := set_aside(path):
            log.warning("an earlier run's %s is kept as %s", path, place.name)
        return 0.0
    if not path.exists():
        return 0.0
    # The sums that a paused run was ended with are not those of the whole run.
    rows = [row for row in read_metrics(path) if row["step"] <= step and "train_runtime" not in row]
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    return max((row["time"] for row in rows), default=0.0)


def read_metrics(path: str | Path) -> list[MetricsRow]:
    """Return the lines of a metrics.jsonl. A last line that a crash cut short is skipped."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    rows: list[MetricsRow] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"]), "time": float(row["time"])})
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline after it
                break
            raise DataError(f"{path} line {number} is not a line of metrics ({error}); remove it") from error
    return rows


def series(rows: list[MetricsRow], key: str) -> tuple[list[int], list[float], list[int]]:
    """Return steps and values of a metric in order of steps, and the steps where it was not finite.

    A step that was logged twice (evaluation repeated after a resume) counts with its last value.
    """
    values: dict[int, float] = {}
    bad: set[int] = set()
    for row in rows:
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[row["step"]] = float(value)
            bad.discard(row["step"])
        elif key in row.get("non_finite", ()):
            values.pop(row["step"], None)
            bad.add(row["step"])
    steps = sorted(values)
    return steps, [values[step] for step in steps], sorted(bad)
