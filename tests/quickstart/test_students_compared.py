"""The students' comparison: shares by problem, leads that are paired, a verdict that can fail."""

import json

import pytest

from rlt.errors import DataError
from rlt.quickstart.students import (
    STUDENTS,
    compare_students,
    read_students,
    right_by_problem,
    students_summary,
    students_table,
)

# shares of right answers to three problems
BASE = {"a": 0.0, "b": 0.25, "c": 0.5}
BEFORE = {"a": 0.5, "b": 0.25, "c": 0.25}
AFTER = {"a": 1.0, "b": 1.0, "c": 1.0}


def write_answers(directory, shares):
    directory.mkdir()
    rows = [
        {"task": "problems", "problem_id": problem, "sample_index": index, "correct": index < 4 * share}
        for problem, share in shares.items()
        for index in range(4)
    ]
    (directory / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "manifest.json").write_text("{}")


@pytest.fixture
def pipeline(tmp_path):
    for step, shares in zip(STUDENTS.values(), (BASE, BEFORE, AFTER), strict=True):
        write_answers(tmp_path / step, shares)
    return tmp_path


def test_a_problem_counts_with_its_share(pipeline):
    assert right_by_problem(pipeline / "answers_base") == BASE


def test_the_lead_is_paired_by_problem(pipeline):
    students = read_students(pipeline)
    assert [round(a.mean, 4) for a in students.accuracy.values()] == [0.25, 0.3333, 1.0]
    # Of 3 problems: gain 0.75 with the exact lower bound 0.131932 (scipy 1.17, beta.ppf(0.025, 2.25, 1.75)),
    # loss 0 with the upper bound 1 - 0.025^(1/3) = 0.707598; together as the root of squares.
    lead = students.lead["base"]
    assert (lead.mean, lead.low) == (0.75, pytest.approx(-0.18952, abs=1e-5))
    assert not students.is_real
    assert "+75.0 [-19.0, +" in students_table(students)


def test_a_lead_on_enough_problems_is_real():
    base, after = (
        {f"{name}{i}": share for name, share in shares.items() for i in range(8)} for shares in (BASE, AFTER)
    )
    students = compare_students(dict(zip(STUDENTS, (base, base, after), strict=True)))
    assert students.is_real
    assert students_summary(students).startswith("The RL teacher's student is better")


def test_a_lead_that_may_be_noise_is_none():
    students = compare_students(dict(zip(STUDENTS, (BASE, AFTER | {"b": 0.0}, AFTER), strict=True)))
    assert not students.is_real  # 0, 1, 0: mean 0.33, half width 1.43
    assert "NOT shown" in students_summary(students)


def test_no_answers_is_an_error(pipeline):
    (pipeline / "answers_base/samples.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no answers"):
        read_students(pipeline)
