"""One answer that another tool has sampled, as its reader hands it over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlt.errors import DataError
from rlt.tasks.benchmarks.catalog import BENCHMARKS
from rlt.tasks.boxes import last_boxes
from rlt.tasks.extraction import after_final_mark

_LETTER = re.compile(r"\(?([A-J])\)?")
_PREFIX = re.compile(r"\s*ANSWER:\s*", re.IGNORECASE)
ANSWERS = ("answer", "expected_answer", "final_answer", "Answer", "reference", "solution")
QUESTIONS = ("problem", "question", "Question", "prompt")


@dataclass(frozen=True)
class Sample:
    """An answer with what it is graded by."""

    task: str
    question: str | None
    reference: str
    text: str
    problem: str
    """What distinguishes the problems of a task, and is the same for all samples of one."""
    num_tokens: int | None = None
    """None where the tool does not say."""
    finish_reason: str | None = None
    theirs: bool | None = None
    """The tool's own verdict."""
    options: Sequence[str] = ()
    """The letters that may be answered, where they are known."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Column -> value, of those by which the benchmark's accuracy is reported as well."""


def plain_reference(value: Any) -> str:
    """Return the right answer in what a tool stores: a list, a solution with box or `####`, or the answer."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (str(part).strip().strip("$") for part in value)))
    text = _PREFIX.sub("", str(value), count=1).strip()
    if (number := after_final_mark(text)) is not None:
        return number.replace(",", "")
    return (last_boxes(text) if "\\boxed" in text else None) or text


def groups_of(record: Mapping[str, Any], task: str) -> dict[str, str]:
    """Return the columns by which a known benchmark's accuracy is reported, where a tool kept them."""
    columns = BENCHMARKS[task].groups if task in BENCHMARKS else []
    return {column: str(record[column]) for column in columns if record.get(column) not in (None, "")}


def kind_of(sample: Sample) -> str:
    """Return the kind of an answer: a letter where the reference is one, else mathematics."""
    if not _LETTER.fullmatch(sample.reference):
        return "math"
    is_one_of_four = sample.reference in "ABCD" and len(sample.options) <= 4
    return "choice" if is_one_of_four else "choice10"


def first_of(record: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    """Return the first field that is there and not empty; DataError where none is."""
    for name in names:
        if record.get(name) not in (None, "", []):
            return record[name]
    raise DataError(f"{where} has none of the fields {', '.join(names)}: add one of them")


def texts_of(value: Any, where: str) -> list[str]:
    """Return one answer or a list of answers as a list of texts."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError(f"{where} must be a text or a list of texts, got {type(value).__name__}")
    return found
