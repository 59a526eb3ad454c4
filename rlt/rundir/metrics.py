"""metrics.jsonl: one JSON line for everything the trainer logs, whatever tracker is on.

A line is `{"step", "epoch", "time", metrics in alphabetical order, "non_finite"?}`; `time` is seconds of
training, carried on over a resume. A NaN or infinity is null and its key is in `non_finite`. A step has
one line of training metrics and may have further ones (evaluation, the closing summary).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from rlt.errors import DataError
from rlt.io import set_aside, to_json, write_text

log = logging.getLogger(__name__)

NAME = "metrics.jsonl"
GENERATED = "completions/total_tokens"
"""Metric of the RL stages: the tokens of all completions since the first step."""
MetricsRow = dict[str, Any]
"""`step`, `epoch` and `time`, then any metric by its name: a number, or null where it was none."""


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
