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
    # over the base 1, 0.75, 0.5: mean 0.75, deviation 0.25, half width 4.3027 · 0.25/sqrt(3) = 0.6210
    lead = students.lead["base"]
    assert (lead.mean, lead.low) == (0.75, pytest.approx(0.1290, abs=1e-4))
    assert students.is_real
    assert students_summary(students).startswith("The RL teacher's student is better")
    assert "+75.0 [+12.9, +137.1] %" in students_table(students)


def test_a_lead_that_may_be_noise_is_none():
    students = compare_students(dict(zip(STUDENTS, (BASE, AFTER | {"b": 0.0}, AFTER), strict=True)))
    assert not students.is_real  # 0, 1, 0: mean 0.33, half width 1.43
    assert "NOT shown" in students_summary(students)


def test_no_answers_is_an_error(pipeline):
    (pipeline / "answers_base/samples.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no answers"):
        read_students(pipeline)
