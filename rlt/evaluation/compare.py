"""Is one model better than another, or is it noise? `python -m rlt.evaluation.compare RUN_A RUN_B …`.

Each is a run directory of the stage evaluate, or several of them joined by commas, whose samples are pooled
by problem: the seeds of one model. All models are compared with the first, problem by problem, so that what
makes a problem easy or hard for all does not count. The intervals are over problems; they do not say how much
another training seed would differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlt.errors import DataError
from rlt.evaluation.comparison_page import html_page, markdown_page
from rlt.evaluation.paired import Paired, compare
from rlt.evaluation.runs import VERDICTS, Model, differences_of_protocol, read_models
from rlt.parser import Parser
from rlt.surroundings.leaving import run_command

_FEWEST = 2
"""Problems of a group that has an interval."""


@dataclass(frozen=True)
class Comparison:
    """The whole comparison of some models."""

    models: Sequence[Model]
    pairs: Sequence[Paired]
    """Each task, and each model after the first."""
    groups: Sequence[Paired]
    """The same of groups of problems, such as `math500, level 5`."""
    differences: Sequence[str]
    """What the protocols do not have in common."""


def compare_models(models: Sequence[Model]) -> Comparison:
    """Return the comparison of each model with the first; DataError where the problems are not the same."""
    first, *others = models
    pairs = [pair for m in others for pair in compare(first.shares, m.shares, (first.name, m.name))]
    groups = [
        pair
        for task, of_task in first.groups.items()
        for group, shares in of_task.items()
        if len(shares) >= _FEWEST
        for m in others
        for pair in compare(
            {f"{task}, {group}": shares},
            {f"{task}, {group}": {problem: m.shares[task][problem] for problem in shares}},
            (first.name, m.name),
        )
    ]
    order = list(first.shares)
    pairs.sort(key=lambda pair: order.index(pair.task))
    return Comparison(models, pairs, groups, list(dict.fromkeys(_differences(models))))


def _differences(models: Sequence[Model]) -> Iterator[str]:
    first = models[0].manifests[0]
    for model in models:
        for manifest in model.manifests:
            yield from differences_of_protocol(first, manifest)


def as_json(comparison: Comparison, with_problems: bool) -> dict[str, Any]:
    """Return the comparison as one JSON object."""
    pairs = comparison.pairs
    found: dict[str, Any] = {
        "models": [
            {
                "name": model.name,
                "runs": [str(run) for run in model.runs],
                "samples": dict(model.samples),
                "cut": dict(model.cut),
                "undecided": dict(model.undecided),
            }
            for model in comparison.models
        ],
        "tasks": [_with_verdict(pair, len(pairs)) for pair in pairs],
        "groups": [_with_verdict(pair, len(comparison.groups)) for pair in comparison.groups],
        "protocol_differs": list(comparison.differences),
    }
    if with_problems:
        found["problems"] = {
            task: {
                problem: {model.name: model.shares[task][problem] for model in comparison.models}
                for problem in shares
            }
            for task, shares in comparison.models[0].shares.items()
        }
    return found


def _with_verdict(pair: Paired, num: int) -> dict[str, Any]:
    return {**asdict(pair), "p_value": pair.p_value, "verdict": pair.sentence(num)}


def main(words: Sequence[str]) -> int:
    """Print the comparison; return the exit code."""
    parser = Parser(prog="python -m rlt compare", description="Compare evaluations by problem.")
    parser.add_argument(
        "models",
        nargs="+",
        metavar="RUN",
        help="a run directory; RUN,RUN pools the seeds of one model; NAME=RUN names it",
    )
    parser.add_argument("--grader", choices=VERDICTS, default="ours", help="whose verdicts are compared")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of Markdown")
    parser.add_argument("--problems", action="store_true", help="add every problem on which models differ")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a picture as well")
    typed = parser.parse_args(words)
    if len(typed.models) < 2:
        parser.error("give two runs at least, as in `python -m rlt compare results/before results/after`")
    comparison = compare_models(read_models(typed.models, VERDICTS[typed.grader]))
    if typed.html:
        _write_page(typed.html, comparison, typed.grader)
    if typed.json:
        sys.stdout.write(json.dumps(as_json(comparison, typed.problems)) + "\n")
        return 0
    sys.stdout.write(
        markdown_page(
            comparison.models,
            comparison.pairs,
            comparison.groups,
            comparison.differences,
            with_problems=typed.problems,
        )
    )
    return 0


def _write_page(path: Path, comparison: Comparison, grader: str) -> None:
    page = html_page(comparison.models, comparison.pairs, comparison.groups, comparison.differences, grader)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; give another --html FILE") from None


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
