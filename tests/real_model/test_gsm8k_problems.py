"""GSM8K rows as problems: both shapes of rows, the parts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlt.errors import DataError
from rlt.real_model.problems import KINDS, VAGUE, Row, as_row, four_kinds, write_problems
from rlt.real_model.sizes import Sizes

HUB_ROW = {
    "question": "How many clips? ",
    "answer": "In May she sold 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>1,072.\n#### 1,072",
}
WORKING = "In May she sold 48/2 = 24 clips.\nIn all 48+24 = 1,072."


@pytest.mark.parametrize(
    "values",
    [
        HUB_ROW,
        {"question": "How many clips?", "reasoning_trace": WORKING, "solution": "#### 1,072"},
        {
            "question": "How many clips?",
            "reasoning_trace": WORKING,
            "solution": "#### 1,072",
            "answer": "1072",
        },
    ],
)
def test_both_shapes_of_rows_give_the_same_problem(values):
    assert as_row(values, "row 1") == Row("How many clips?", WORKING, "1072")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"question": "Q?"}, "lacks a text under `question` or `answer`"),
        ({"question": " ", "answer": "1 #### 1"}, "lacks a text"),
        ({"question": "Q?", "answer": "seventy-two"}, "has no line `#### NUMBER`"),
        ({"question": "Q?", "answer": "#### 72"}, "has no working"),
        ({"question": "Q?", "answer": "It is 72.\n#### "}, "no number after it"),
    ],
)
def test_a_row_of_something_else_is_named(values, sentence):
    with pytest.raises(DataError) as caught:
        as_row(values, "rows.jsonl, line 3")
    assert str(caught.value).startswith("rows.jsonl, line 3 ")
    assert sentence in str(caught.value)


def test_the_kinds_of_one_problem():
    rows = [Row("a?", "so a", "1"), Row("b?", "so b", "2"), Row("c?", "so c", "3")]
    lines = four_kinds(rows)
    assert [line["explanations"] for line in lines] == [
        ["so a", "so b", VAGUE, "The answer is 1."],
        ["so b", "so c", VAGUE, "The answer is 2."],
        ["so c", "so a", VAGUE, "The answer is 3."],
    ]
    assert len(lines[0]["explanations"]) == len(KINDS)


SIZES = Sizes(kinds=3, student_steps=1, warm_up_steps=1, rl_steps=1, held_out=4, students=2, dtype="float32")


def rows_file(folder: Path, number: int) -> Path:
    path = folder / "rows.jsonl"
    rows = [{"question": f"{i} and {i}?", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"} for i in range(number)]
    long = {"question": "x" * 261, "answer": "long\n#### 1"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [long, *rows, rows[0]]))
    return path


def test_no_problem_is_in_two_parts_and_the_seed_decides(tmp_path):
    source = rows_file(tmp_path, 89)  # 3 + 16 + 64 + 4 + 2

    def parts(seed: int) -> dict[str, list[str]]:
        folder = tmp_path / str(seed)
        write_problems(folder, str(source), SIZES, seed)
        return {
            path.stem: [json.loads(line)["question"] for line in path.read_text().splitlines()]
            for path in folder.glob("*.jsonl")
        }

    found = parts(0)
    assert {name: len(of) for name, of in found.items()} == {
        "kinds": 3,
        "student": 16,
        "train": 64,
        "held_out": 4,
        "students": 2,
    }
    assert len({question for of in found.values() for question in of}) == 89
    assert parts(0) == found
    assert parts(1) != found


def test_too_few_rows_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"holds 88 rows of at most 260 characters .* and 89 are needed"):
        write_problems(tmp_path / "problems", str(rows_file(tmp_path, 88)), SIZES, 0)
