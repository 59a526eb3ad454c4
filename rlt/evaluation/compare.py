"""Is one model better than another, or is it noise? `python -m rlt.evaluation.compare RUN_A RUN_B`.

Both are run directories of the stage evaluate on the same problems. They are compared problem by problem, so
that what makes a problem easy or hard for both does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlt.errors import DataError, RLTError
from rlt.evaluation.intervals import Interval, paired_share_interval

Shares = dict[str, float]
"""By problem_id, the share of right answers."""
VERDICTS = {"ours": "correct", "skythought": "correct_skythought"}
"""By the grader's name, its field in samples.jsonl."""
_LEVEL = 0.05
"""Above this p-value of the sign test a difference may be noise, whatever its interval."""
_PROTOCOL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length")
_PROTOCOL += ("student_prompt_sha256", "layout.tags", "layout.chat_template_kwargs", "layout.date", "grading")
"""What two runs should have in common, in manifest.json; the models themselves differ."""


@dataclass(frozen=True)
class Paired:
    """Two models on the problems of one task."""

    task: str
    before: float
    after: float
    difference: Interval
    """Of the accuracies, paired by problem."""
    num_better: int
    """Problems that the second model solves more often."""
    num_worse: int

    @property
    def p_value(self) -> float:
        """The sign test over problems that differ, two-sided; with one sample each, McNemar's exact test."""
        num = self.num_better + self.num_worse
        tail = sum(math.comb(num, i) for i in range(min(self.num_better, self.num_worse) + 1))
        return min(1.0, 2 * tail / 2**num)

    def sentence(self, num_tasks: int = 1) -> str:
        """Whether the difference is more than noise: where its interval and the sign test both say so.

        Of several tasks the p-value counts times their number (Bonferroni).
        """
        low, high = self.difference.low, self.difference.high
        points = (
            f"{100 * self.difference.mean:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
        )
        p_value = min(1.0, num_tasks * self.p_value)
        excludes = low > 0 or high < 0
        if excludes and p_value > _LEVEL:
            return (
                f"{self.task}: the difference may be noise ({points}): the interval excludes 0, but the "
                f"sign test does not find it unlikely (p {p_value:.2g})."
            )
        if excludes:
            which = "better" if low > 0 else "worse"
            return f"{self.task}: the second model is {which} by more than noise ({points})."
        return f"{self.task}: the difference may be noise ({points})."


def compare(first: Mapping[str, Shares], second: Mapping[str, Shares]) -> list[Paired]:
    """Return the comparison of each task; DataError where the problems are not the same."""
    if first.keys() != second.keys():
        names = [", ".join(run) for run in (first, second)]
        raise DataError(
            f"the two runs hold different tasks, {names[0]} and {names[1]}: evaluate both on the same"
        )
    found = []
    for task, before in first.items():
        after = second[task]
        try:
            difference = paired_share_interval(before, after)
        except DataError as error:
            raise DataError(f"task {task} cannot be compared: {error}") from None
        changes = [after[problem] - before[problem] for problem in before]
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        found.append(Paired(task, fmean(before.values()), fmean(after.values()), difference, better, worse))
    return found


def read_shares(run: Path, verdict: str = "correct") -> dict[str, Shares]:
    """Return an evaluation's share of right answers, by task and problem; `verdict` names the grader's field.

    A task that the grader does not know is left out.
    """
    path = _written(run, "samples.jsonl")
    verdicts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row[verdict] is not None:
                verdicts[row["task"]][row["problem_id"]].append(row[verdict])
    return {
        task: {problem: fmean(found) for problem, found in problems.items()}
        for task, problems in verdicts.items()
    }


def read_manifest(run: Path) -> dict[str, Any]:
    """Return what an evaluation's answers depend on."""
    return json.loads(_written(run, "manifest.json").read_text(encoding="utf-8"))


def _written(run: Path, name: str) -> Path:
    if not (run / name).is_file():
        raise DataError(f"{run / name} does not exist: give the run directory of a finished evaluation")
    return run / name


def differences_of_protocol(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what two manifests do not have in common besides the model."""
    found = [
        f"{name} is {json.dumps(first.get(name))} and {json.dumps(second.get(name))}"
        for name in _PROTOCOL
        if first.get(name) != second.get(name)
    ]
    tasks, others = first.get("tasks", {}), second.get("tasks", {})
    asked_otherwise = [
        task
        for task in tasks
        if task in others and tasks[task]["prompts_sha256"] != others[task]["prompts_sha256"]
    ]
    return found + [f"{task} was asked in other words" for task in asked_otherwise]


def page(pairs: Sequence[Paired]) -> str:
    """Return the table and a sentence for each task, as Markdown."""
    lines = [
        "| task | first | second | difference [95 %] | better / worse | p (sign test) |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for pair in pairs:
        mean, low, high = (100 * v for v in (pair.difference.mean, pair.difference.low, pair.difference.high))
        cells = (
            pair.task,
            f"{100 * pair.before:.1f}",
            f"{100 * pair.after:.1f}",
            f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
            f"{pair.num_better} / {pair.num_worse}",
            f"{pair.p_value:.3g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    num = len(pairs)
    several = [
        f"{num} tasks are compared. Without any difference, one of them or more would have p < 0.05 in up to "
        f"{100 * (1 - 0.95**num):.0f} % of comparisons, so the sentences above take each p-value times {num} "
        "(Bonferroni). The intervals are for one task each."
    ]
    sentences = [pair.sentence(num) for pair in pairs]
    return "\n".join([*lines, "", *sentences, *(several if num > 1 else ())]) + "\n"


def main(words: Sequence[str]) -> int:
    """Print the comparison; return the exit code."""
    parser = argparse.ArgumentParser(prog="compare", description="Compare two evaluations by problem.")
    parser.add_argument("first", type=Path, metavar="RUN_A")
    parser.add_argument("second", type=Path, metavar="RUN_B")
    parser.add_argument("--grader", choices=VERDICTS, default="ours", help="whose verdicts are compared")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of Markdown")
    typed = parser.parse_args(words)
    verdict = VERDICTS[typed.grader]
    try:
        pairs = compare(read_shares(typed.first, verdict), read_shares(typed.second, verdict))
        manifests = [read_manifest(run) for run in (typed.first, typed.second)]
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    differences = differences_of_protocol(*manifests)
    if typed.json:
        tasks = [
            {**asdict(pair), "p_value": pair.p_value, "verdict": pair.sentence(len(pairs))} for pair in pairs
        ]
        sys.stdout.write(json.dumps({"tasks": tasks, "protocol_differs": differences}) + "\n")
        return 0
    sys.stdout.write(page(pairs))
    for difference in differences:
        sys.stdout.write(f"Note: {difference}, so the models are not all that differs.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
