"""Graded samples -> the numbers of each task: accuracy and how sure it is, format, truncation, lengths."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

Row = Mapping[str, Any]
Z_95 = 1.959963984540054


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the numbers by task, in the order in which the tasks come."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    return {task: summarize_task(of_task) for task, of_task in by_task.items()}


def summarize_task(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the numbers of one task; its samples come as written to samples.jsonl."""
    problems: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        problems[row["problem_id"]].append(row)
    scores = [fmean(row["correct"] for row in samples) for samples in problems.values()]
    mean = fmean(scores)
    error = stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None
    lengths = sorted(row["num_tokens"] for row in rows)
    return {
        "num_problems": len(problems),
        "num_samples": len(rows),
        "samples_per_problem": len(rows) / len(problems),
        "accuracy": mean,
        "standard_error": error,
        "interval_95": None if error is None else [mean - Z_95 * error, mean + Z_95 * error],
        "truncated": fmean(row["finish_reason"] == "length" for row in rows),
        "well_formed": fmean(row["why"] is None for row in rows),
        "no_answer": fmean(row["extracted"] is None for row in rows),
        "tokens": {"mean": fmean(lengths), "median": median(lengths), "max": lengths[-1]},
        "rules": dict(sorted(Counter(row["rule"] for row in rows).items())),
    }
