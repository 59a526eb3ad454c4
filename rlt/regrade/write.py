"""Samples -> verdicts -> the folder of an evaluation, which `compare` and the report read like any other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlt.evaluation.summary import Numbers, summarize
from rlt.evaluation.table import by_group, results
from rlt.evaluation.verdicts import GradingPool, Ungraded
from rlt.formats.answer import read_answer
from rlt.formats.tags import TagStyle
from rlt.formats.turns import turn_style
from rlt.io import write_json, write_jsonl, write_text
from rlt.records import problem_id
from rlt.regrade.sample import Sample, kind_of
from rlt.reporting.evaluation_page import Results, write_evaluation_page
from rlt.reporting.evaluation_plots import Accuracy, draw_accuracies
from rlt.rundir.run_record import RunRecord, code_version, library_versions
from rlt.tasks.benchmarks.catalog import BENCHMARKS
from rlt.tasks.extraction import ORDERS
from rlt.tasks.math_grader import MathGrader
from rlt.text import markdown

NO_LAYOUT = "not one thought and one solution in their tags"
UNKNOWN = "unknown"
"""The finish reason of an answer whose tool does not say."""
_REPORTED = 100
"""Answers in report.html."""


@dataclass(frozen=True)
class Grading:
    """How answers are read and graded, as the settings of `evaluate` of these names."""

    extraction: str
    unfinished: str
    tags: TagStyle
    seconds: float = 5.0


def write_evaluation(samples: Sequence[Sample], files: Sequence[Path], output: Path, grading: Grading) -> str:
    """Return summary.md; samples, summary, manifest and report are written beside it."""
    inputs = {f"samples.{number}": str(path) for number, path in enumerate(files)}
    with RunRecord.start(output, stage="regrade", seed=None, inputs=inputs) as record:
        rows = grade(samples, grading)
        with MathGrader(grading.seconds) as grader:
            numbers = summarize(rows, grader.grade)
        for task, of_task in numbers.items():
            of_task["their_verdicts"] = _theirs([row for row in rows if row["task"] == task])
        write_jsonl(output / "samples.jsonl", rows)
        write_json(output / "summary.json", {"tasks": numbers})
        how = {
            "extraction": grading.extraction,
            "unfinished": grading.unfinished,
            "grading_seconds": grading.seconds,
        }
        manifest = {"grading": how, "layout.tags": grading.tags.name, "data": record.fields["inputs"]}
        manifest |= {"code": code_version(), "libraries": library_versions()}
        write_json(output / "manifest.json", manifest)
        model = f"Samples of {', '.join(path.name for path in files)}, graded again"
        remarks = [
            f"Answers are read by the rules `{grading.extraction}`; nothing was generated.",
            *_sentences(numbers),
        ]
        page = [f"# {model}", " ".join(remarks), markdown(results(numbers)).strip()]
        if len(groups := by_group(numbers)) > 1:
            page += ["## By groups of problems", markdown(groups).strip()]
        write_text(output / "summary.md", "\n\n".join(page) + "\n")
        record.update(results=numbers)
    plot = draw_accuracies("graded again", [_line(task, of_task) for task, of_task in numbers.items()])
    shown = Results(model, " ".join(remarks), results(numbers), [plot], by_group(numbers))
    write_evaluation_page(output, shown, _REPORTED)
    return (output / "summary.md").read_text(encoding="utf-8")


def grade(samples: Sequence[Sample], grading: Grading) -> list[dict[str, Any]]:
    """Return the rows of samples.jsonl."""
    ungraded, are_well_formed = [], []
    for sample in samples:
        answer = read_answer(sample.text, turn_style(grading.tags))
        are_well_formed.append(answer.is_well_formed)
        text = None if answer.is_unfinished and grading.unfinished == "wrong" else answer.text
        ungraded.append(Ungraded(text, sample.reference, kind_of(sample), sample.text))
    with GradingPool(ORDERS[grading.extraction], seconds=grading.seconds) as pool:
        verdicts = pool.grade(ungraded)
    next_index: dict[tuple[str, str], int] = defaultdict(int)
    rows = []
    for sample, verdict, well_formed in zip(samples, verdicts, are_well_formed, strict=True):
        key = problem_id(sample.question or sample.problem, sample.reference)
        is_private = sample.task in BENCHMARKS and BENCHMARKS[sample.task].private
        rows.append(
            {
                "task": sample.task,
                "problem_id": key,
                "sample_index": next_index[sample.task, key],
                "prompt_sha256": None,
                "question": None if is_private else sample.question or "",
                "option_order": None,
                "groups": dict(sample.groups),
                "text": sample.text,
                "num_tokens": sample.num_tokens,
                "finish_reason": sample.finish_reason or UNKNOWN,
                "why": None if well_formed else NO_LAYOUT,
                "reference": sample.reference,
                **asdict(verdict),
                "correct_theirs": sample.theirs,
            }
        )
        next_index[sample.task, key] += 1
    return rows


def _theirs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what the tool's own verdicts say of a task; None where it has stored none."""
    known = [row for row in rows if row["correct_theirs"] is not None]
    if not known:
        return None
    return {
        "num_samples": len(known),
        "right": sum(row["correct_theirs"] for row in known),
        "only_ours_right": sum(row["correct"] and not row["correct_theirs"] for row in known),
        "only_theirs_right": sum(row["correct_theirs"] and not row["correct"] for row in known),
    }


def _sentences(numbers: Mapping[str, Numbers]) -> list[str]:
    found = [
        f"Of {theirs['num_samples']} answers of {task} the tool itself calls {theirs['right']} right; "
        f"{theirs['only_ours_right']} are right here alone, {theirs['only_theirs_right']} there alone."
        for task, of_task in numbers.items()
        if (theirs := of_task["their_verdicts"])
    ]
    return [*found, "Which answers were cut is known only where the tool says so."]


def _line(task: str, numbers: Numbers) -> Accuracy:
    interval = numbers["interval_95"]
    in_percent = (100 * interval[0], 100 * interval[1]) if interval else None
    return Accuracy(task, 100 * numbers["accuracy"], in_percent)
