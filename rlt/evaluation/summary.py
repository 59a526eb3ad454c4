"""Graded samples -> the numbers of each task: accuracy and how sure it is, format, truncation, lengths."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

from rlt.evaluation.intervals import mean_interval
from rlt.generation.openai_pool import WITHHELD
from rlt.tasks.normal_form import normal_form

Row = Mapping[str, Any]


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the numbers by task, in the order in which the tasks come."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    return {task: summarize_task(of_task) for task, of_task in by_task.items()}


def summarize_task(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the numbers of one task, from its rows of samples.jsonl.

    The samples of a problem are no independent witnesses: the error is that of the mean over problems.
    """
    by_problem: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_problem[row["problem_id"]].append(row)
    problems = list(by_problem.values())
    accuracies = [fmean(row["correct"] for row in samples) for samples in problems]
    mean = fmean(accuracies)
    error = stdev(accuracies) / math.sqrt(len(problems)) if len(problems) > 1 else None
    lengths = [row["num_tokens"] for row in rows]
    least = min(len(samples) for samples in problems)
    return {
        "num_problems": len(problems),
        "num_samples": len(rows),
        "samples_per_problem": len(rows) / len(problems),
        "accuracy": mean,
        "standard_error": error,
        "interval_95": None if error is None else interval(accuracies),
        "accuracy_skythought": by_skythought(rows),
        "pass_at": {str(k): pass_at(k, problems) for k in _sizes(least)},
        "majority": fmean(majority_is_right(samples) for samples in problems),
        "truncated": fmean(row["finish_reason"] == "length" for row in rows),
        "well_formed": fmean(row["why"] is None for row in rows),
        "no_answer": fmean(row["extracted"] is None for row in rows),
        "withheld": dict(Counter(row["finish_reason"] for row in rows if row["finish_reason"] in WITHHELD)),
        "tokens": {"mean": fmean(lengths), "median": median(lengths), "max": max(lengths)},
        "rules": dict(sorted(Counter(row["rule"] for row in rows).items())),
    }


def by_skythought(rows: Sequence[Row]) -> float | None:
    """Return the share of answers that SkyThought would call right; None for a task that it has not."""
    verdicts = [row["correct_skythought"] for row in rows]
    return None if None in verdicts else fmean(verdicts)


def interval(accuracies: Sequence[float]) -> list[float]:
    """Return the 95 % confidence interval of the mean accuracy over problems, within 0 and 1.

    Student's t over the problems' accuracies, since the samples of a problem depend on each other. Where no
    sample is right, or none is wrong, there is no spread to go by: then the exact bound for as many problems
    counts (Clopper and Pearson 1934).
    """
    mean = fmean(accuracies)
    if mean in (0, 1):
        bound = 1 - 0.025 ** (1 / len(accuracies))
        return [0.0, bound] if mean == 0 else [1 - bound, 1.0]
    found = mean_interval(accuracies)
    return [max(0.0, found.low), min(1.0, found.high)]


def pass_at(k: int, problems: Sequence[Sequence[Row]]) -> float:
    """Return the share of problems that k samples solve, without bias (Chen et al. 2021, equation 1)."""
    return fmean(
        1 - math.comb(len(samples) - sum(row["correct"] for row in samples), k) / math.comb(len(samples), k)
        for samples in problems
    )


def majority_is_right(samples: Sequence[Row]) -> bool:
    """Whether the answer that most samples give is right; of equally frequent ones the first counts.

    Answers are the same where their normal forms are; a sample without an answer has no vote.
    """
    forms = [None if row["extracted"] is None else normal_form(row["extracted"]) for row in samples]
    votes = Counter(form for form in forms if form is not None)
    if not votes:
        return False
    winner = max(votes, key=lambda form: votes[form])  # the first of the highest, in order of appearance
    return any(row["correct"] for row, form in zip(samples, forms, strict=True) if form == winner)


def _sizes(most: int) -> list[int]:
    """Return 1, 2, 4, … up to `most`, and `most` itself."""
    return sorted({2**i for i in range(most.bit_length())} | {most})
