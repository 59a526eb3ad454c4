"""GSM8K rows as problems: for each training, held out, and with four kinds of explanations.

Reads the rows of `openai/gsm8k` (`question`, `answer` = working, a line `#### 72`) or of a file with
`question`, `reasoning_trace` and `answer` or `solution`. The solution is the number alone; the marks of the
calculator (`<<48/2=24>>`) are removed from the working.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.data.sources import read_rows
from rlt.errors import DataError
from rlt.io import write_jsonl
from rlt.real_model.sizes import Sizes

HUB, HUB_CONFIG = "openai/gsm8k", "main"
KINDS = ("its own", "another row's", "vague", "the answer alone")
"""What is at each place of a row's `explanations` in kinds.jsonl."""
VAGUE = "Let us read the question carefully, think about it step by step, and work the answer out."
MOST_CHARACTERS = 260
"""Of a question, and of its working: about 65 tokens each. Longer rows take time that two cores lack."""
_MARKS = re.compile(r"<<[^<>]*>>")
_END = "####"


@dataclass(frozen=True)
class Row:
    """A question with its working and its number."""

    question: str
    working: str
    solution: str

    def as_problem(self) -> dict[str, str]:
        """Return it in the columns of all stages."""
        return {"question": self.question, "solution": self.solution, "reasoning_trace": self.working}


def write_problems(folder: Path, source: str, sizes: Sizes, seed: int) -> None:
    """Write held_out, students, kinds, student and train to `folder`, drawn from the short rows of `source`.

    No problem is in two of them.
    """
    rows = read_short_rows(source)
    random.Random(seed).shuffle(rows)
    parts = {
        "held_out": sizes.held_out,
        "students": sizes.students,
        "kinds": sizes.kinds,
        "student": sizes.student_rows,
        "train": sizes.warm_up_rows,
    }
    if (needed := sum(parts.values())) > len(rows):
        raise DataError(
            f"{source} holds {len(rows)} rows of at most {MOST_CHARACTERS} characters in question and "
            f"working, and {needed} are needed: give all of GSM8K, or fewer hours"
        )
    start = 0
    for name, number in parts.items():
        part = rows[start : start + number]
        start += number
        lines = four_kinds(part) if name == "kinds" else [row.as_problem() for row in part]
        write_jsonl(folder / f"{name}.jsonl", lines)


def read_short_rows(source: str) -> list[Row]:
    """Return the rows of a file or Hub dataset whose texts are short, each question once."""
    table = read_rows(source, config_name=HUB_CONFIG if source == HUB else None)
    rows: dict[str, Row] = {}
    for read in table.rows:
        row = as_row(read.values, f"{source}, {table.unit} {read.number}")
        if max(len(row.question), len(row.working)) <= MOST_CHARACTERS:
            rows.setdefault(row.question, row)
    return list(rows.values())


def as_row(values: Mapping[str, Any], place: str) -> Row:
    """Return a source's row; DataError names its place where a part is missing."""
    question, working = values.get("question"), values.get("reasoning_trace")
    answer = values.get("answer") or values.get("solution")
    if not all(isinstance(text, str) and text.strip() for text in (question, answer)):
        raise DataError(f"{place} lacks a text under `question` or `answer`: give rows of GSM8K")
    if working is None:
        working, mark, answer = str(answer).rpartition(_END)
        if not mark:
            raise DataError(
                f"{place} has no line `{_END} NUMBER` in `answer`, nor a `reasoning_trace`: give GSM8K"
            )
    working = _MARKS.sub("", str(working)).strip()
    solution = str(answer).replace(_END, "").replace(",", "").strip()
    if not working or not solution:
        raise DataError(f"{place} has no working, or no number after it: give rows of GSM8K")
    return Row(str(question).strip(), working, solution)


def four_kinds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return each problem with its own working, that of the next row, vague words, and its answer alone."""
    lines = []
    for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True):
        texts = [row.working, other.working, VAGUE, f"The answer is {row.solution}."]
        lines.append({"question": row.question, "solution": row.solution, "explanations": texts})
    return lines
