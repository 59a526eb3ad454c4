"""What the quickstart shows: the same held-out problems before and after RL, as table, plot and JSON.

Everything is read from the RL run's directory, so the report can be made again at any time. Not included:
judging a real teacher: the kinds of explanation exist in the toy world only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlt.errors import DataError
from rlt.evaluation.intervals import Interval, paired_interval
from rlt.io import write_text
from rlt.quickstart.world import classify
from rlt.rundir.samples import read_samples, sample_files
from rlt.text import markdown, printable

Row = dict[str, Any]
RESULT = "quickstart.json"
"""The file in a seed's folder with its results."""

MEASURES: dict[str, Callable[[Row], float]] = {
    "reward": lambda row: row["reward"],
    "r_SS": lambda row: row["r_ss"],
    "r_KL": lambda row: row["r_kl"],
    "closes its tag": lambda row: 1.0 - row["missing_tag"],
    "good explanations": lambda row: float(classify(row["question"], row["explanation"]) == "good"),
    "vague explanations": lambda row: float(classify(row["question"], row["explanation"]) == "vague"),
    "faulty explanations": lambda row: float(classify(row["question"], row["explanation"]) == "faulty"),
}
"""What is compared, under the name the table gives it. The ones after r_KL are shares of the samples."""
WHAT_IT_SHOWS = (
    "The quickstart shows that every stage works: its base model was pre-trained on the good explanations in "
    "the student's own layout, so that RL only has to choose them more often, and the student to write what "
    "it has read before. It does not show that the solution helps a teacher, or that r_KL, min and max are "
    "needed: the chain follows from the question, and copying the solution is not in the teacher's "
    "repertoire. Controls, rivals and ablations that could have come out otherwise, in a world where the "
    "solution matters, are in docs/claims.md."
)
"""What README and the cards of the quickstart's models say of it."""
LEAST_CLOSED = 0.95
"""Share of warm-up samples with the end tag, below which a rise could be the format penalty vanishing."""


@dataclass(frozen=True)
class Change:
    """A measure on the held-out problems before and after RL."""

    before: float
    after: float
    difference: Interval
    """Paired by problem; each problem counts with the mean of its samples."""


@dataclass(frozen=True)
class Comparison:
    """All measures of one run, and the two points they compare."""

    step: int
    num_problems: int
    num_samples: int
    """Of each problem, before and after."""
    changes: dict[str, Change]

    @property
    def is_real(self) -> bool:
        """The warm-up teacher closed its tag, and the student finds the solutions more likely since."""
        changes = self.changes
        return changes["closes its tag"].before >= LEAST_CLOSED and changes["r_SS"].difference.low > 0


def evaluations(run: Path) -> dict[int, list[Row]]:
    """Return the held-out samples of a run by step; at least two evaluations."""
    found = {step: read_samples(path) for step, path in sample_files(run / "samples", "eval_").items()}
    if len(found) < 2:
        raise DataError(
            f"{run}/samples holds {len(found)} evaluations, and a comparison needs one before RL and one "
            "after: run teacher_rl with evaluation.path and evaluation.at_start=true"
        )
    return found


def compare(by_step: Mapping[int, list[Row]]) -> Comparison:
    """Return the first evaluation against the last, paired by problem."""
    (_, before), *_, (step, after) = by_step.items()
    changes = {}
    for name, measure in MEASURES.items():
        old, new = by_problem(before, measure), by_problem(after, measure)
        changes[name] = Change(fmean(old.values()), fmean(new.values()), paired_interval(old, new))
    num_problems = len({row["problem_id"] for row in after})
    return Comparison(step, num_problems, len(after) // num_problems, changes)


def by_problem(rows: Sequence[Row], measure: Callable[[Row], float]) -> dict[str, float]:
    """Return the mean of a measure over each problem's samples."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = measure(row)
        if not math.isfinite(value):
            raise DataError(
                f"sample {row['sample_index']} of held-out problem {row['problem_id']} has no finite score, "
                "so before and after cannot be compared; look at the weights of the student and the teacher"
            )
        values[row["problem_id"]].append(value)
    return {key: fmean(group) for key, group in values.items()}


def table(comparison: Comparison) -> str:
    """Return the comparison as a markdown table."""
    lines = [("held out", "before RL", "after RL", "change [95 % interval]")]
    lines += [change_cells(name, change) for name, change in comparison.changes.items()]
    return markdown(lines).rstrip()


def change_cells(name: str, change: Change) -> tuple[str, str, str, str]:
    """Return the cells of a measure: rewards as numbers, shares as percentages."""
    if name.startswith("r"):
        return name, f"{change.before:+.3f}", f"{change.after:+.3f}", str(change.difference)
    return name, percent(change.before), percent(change.after), percent_interval(change.difference)


def percent(share: float) -> str:
    """Return a share of 1 as a percentage."""
    return f"{100 * share:.1f} %"


def percent_interval(interval: Interval) -> str:
    """Return a difference of shares with its interval, in percentage points."""
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] %"


def example(by_step: Mapping[int, list[Row]]) -> str:
    """Return one held-out problem with its first explanation before and after RL.

    It is the problem whose reward changed by the median amount: neither the best nor the worst.
    """
    (_, before), *_, (_, after) = by_step.items()
    old, new = by_problem(before, MEASURES["reward"]), by_problem(after, MEASURES["reward"])
    ranked = sorted(old, key=lambda key: (new[key] - old[key], key))
    chosen = ranked[len(ranked) // 2]
    parts = []
    for when, rows in (("before RL", before), ("after RL", after)):
        row = next(row for row in rows if row["problem_id"] == chosen and row["sample_index"] == 0)
        if not parts:
            rule = "(from left to right, last digit only)"
            parts.append(f"question: {row['question']}   solution: {row['solution']}   {rule}")
        scores = "  ".join(f"{name} {MEASURES[name](row):+.3f}" for name in ("reward", "r_SS", "r_KL"))
        parts.append(f"{when}   ({scores})")
        parts += [f"    {line}" for line in printable(row["explanation"].strip()).split("\n")]
    return "\n".join(parts)


def add_to_card(run: Path) -> None:
    """Say in a model's card what the quickstart shows; the card is a stage's, which knows no quickstart."""
    card = run / "README.md"
    section = f"\n## What the quickstart shows\n\n{WHAT_IT_SHOWS}\n"
    text = card.read_text(encoding="utf-8")
    if section not in text:
        write_text(card, text + section)


def summary(comparison: Comparison) -> str:
    """Return one sentence: whether the explanations have become better, and what says so."""
    closed, r_ss = comparison.changes["closes its tag"], comparison.changes["r_SS"]
    summary = (
        f"the warm-up teacher closed its tag in {percent(closed.before)} of its explanations, and r_SS "
        f"changed by {r_ss.difference} (paired over {comparison.num_problems} held-out problems, "
        f"{comparison.num_samples} samples each)"
    )
    if comparison.is_real:
        return f"The explanations became better: {summary}."
    needed = f"it needs {percent(LEAST_CLOSED)} and an interval above 0"
    return f"An improvement is NOT shown: {summary}; {needed}."
