"""Graded samples -> the numbers of each task: accuracy and how sure it is, format, truncation, lengths."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

from rlt.evaluation.intervals import share_interval
from rlt.generation.openai_pool import WITHHELD
from rlt.tasks.normal_form import decide, normal_form

Row = Mapping[str, Any]
"""A line of samples.jsonl."""
Numbers = dict[str, Any]
"""What summary.json holds of a task, or of a group of its problems."""
Same = Callable[[Sequence[tuple[str, str]]], list[bool]]
"""Says of pairs of answers whether they are the same, as `Grader.grade` does."""


def grade_by_form(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Return which pairs say the same, as far as that takes no computer algebra."""
    return [bool(decide(*pair)) for pair in pairs]


def summarize(rows: Sequence[Row], same: Same = grade_by_form) -> dict[str, Numbers]:
    """Return the numbers by task, in the order in which the tasks come; `same` compares answers for votes."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    return {task: summarize_task(of_task, same) for task, of_task in by_task.items()}


def summarize_task(rows: Sequence[Row], same: Same = grade_by_form) -> Numbers:
    """Return the numbers of one task, from its rows of samples.jsonl.

    The samples of a problem are no independent witnesses: the error is that of the mean over problems.
    """
    by_problem: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_problem[row["problem_id"]].append(row)
    problems = list(by_problem.values())
    accuracies = [fmean(row["correct"] for row in samples) for samples in problems]
    theirs = [[row["correct_skythought"] for row in samples] for samples in problems]
    by_skythought = None if any(None in verdicts for verdicts in theirs) else [fmean(v) for v in theirs]
    majorities = [float(majority_is_right(samples, same)) for samples in problems]
    error = stdev(accuracies) / math.sqrt(len(problems)) if len(problems) > 1 else None
    lengths = [row["num_tokens"] for row in rows if row["num_tokens"] is not None]
    least = min(len(samples) for samples in problems)
    passes = {str(k): [solved_by(k, samples) for samples in problems] for k in _sizes(least)}
    return {
        "num_problems": len(problems),
        "num_samples": len(rows),
        "samples_per_problem": len(rows) / len(problems),
        "accuracy": fmean(accuracies),
        "standard_error": error,
        "interval_95": interval(accuracies, least),
        "accuracy_skythought": by_skythought and fmean(by_skythought),
        "interval_95_skythought": by_skythought and interval(by_skythought, least),
        "pass_at": {k: fmean(shares) for k, shares in passes.items()},
        "interval_95_pass_at": {k: interval(shares, least) for k, shares in passes.items()},
        "majority": fmean(majorities),
        "interval_95_majority": interval(majorities, least),
        "truncated": fmean(row["finish_reason"] == "length" for row in rows),
        "cut": sum(row["finish_reason"] == "length" for row in rows),
        "undecided": sum(bool(row.get("undecided")) for row in rows),
        "well_formed": fmean(row["why"] is None for row in rows),
        "no_answer": fmean(row["extracted"] is None for row in rows),
        "withheld": dict(Counter(row["finish_reason"] for row in rows if row["finish_reason"] in WITHHELD)),
        "tokens": {"mean": fmean(lengths), "median": median(lengths), "max": max(lengths)}
        if lengths
        else None,
        "rules": dict(sorted(Counter(row["rule"] for row in rows).items())),
        "groups": by_group(problems),
    }


def by_group(problems: Sequence[Sequence[Row]]) -> dict[str, Numbers]:
    """Return the accuracy of each group of problems, such as a level, by column and value."""
    found: dict[str, dict[str, list[Sequence[Row]]]] = defaultdict(lambda: defaultdict(list))
    for samples in problems:
        for column, value in (samples[0].get("groups") or {}).items():
            found[column][value].append(samples)
    return {
        column: {value: _of_group(members) for value, members in sorted(values.items())}
        for column, values in found.items()
    }


def _of_group(problems: Sequence[Sequence[Row]]) -> Numbers:
    shares = [fmean(row["correct"] for row in samples) for samples in problems]
    least = min(len(samples) for samples in problems)
    return {
        "num_problems": len(shares),
        "accuracy": fmean(shares),
        "interval_95": interval(shares, least),
        "cut": sum(row["finish_reason"] == "length" for samples in problems for row in samples),
    }


def interval(shares: Sequence[float], samples: float = math.inf) -> list[float] | None:
    """Return the 95 % confidence interval of the mean share over problems; None for a single problem."""
    if len(shares) < 2:
        return None
    found = share_interval(shares, samples)
    return [found.low, found.high]


def pass_at(k: int, problems: Sequence[Sequence[Row]]) -> float:
    """Return the share of problems that k samples solve."""
    return fmean(solved_by(k, samples) for samples in problems)


def solved_by(k: int, samples: Sequence[Row]) -> float:
    """Return how likely k of the samples hold a right one, without bias (Chen et al. 2021, equation 1)."""
    wrong = sum(not row["correct"] for row in samples)
    return 1 - math.comb(wrong, k) / math.comb(len(samples), k)


def majority_is_right(samples: Sequence[Row], same: Same = grade_by_form) -> bool:
    """Whether the answer that most samples give is right; of equally frequent ones the first counts.

    A vote goes to a class of answers: all that are right are one, and wrong ones are the same where the
    grader says so. A sample without an answer has no vote.
    """
    votes = Counter(normal_form(row["extracted"]) for row in samples if row["extracted"] is not None)
    right = {normal_form(row["extracted"]) for row in samples if row["correct"]}
    num_right = sum(votes[form] for form in right)
    wrong = [form for form in votes if form not in right]
    if num_right == 0 or sum(votes[form] for form in wrong) < num_right:
        return num_right > 0
    classes: dict[str, int] = {}  # the first form of each class -> votes
    for form in wrong:
        first = next((other for other in classes if same([(form, other)])[0]), form)
        classes[first] = classes.get(first, 0) + votes[form]
    most = max(classes.values())
    if most != num_right:
        return num_right > most
    tied = {form for form, num in classes.items() if num == most}
    return next(form in right for form in votes if form in right or form in tied)


def _sizes(most: int) -> list[int]:
    """Return 1, 2, 4, … up to `most`, and `most` itself."""
    return sorted({2**i for i in range(most.bit_length())} | {most})
