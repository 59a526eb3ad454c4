"""The report: pairs by problem, shares of kinds, a verdict that can fail, and a plot."""

from pathlib import Path
from typing import Any

import pytest

from rlt.errors import DataError
from rlt.quickstart.plot import write_plot
from rlt.quickstart.report import compare, evaluations, example, summary, table
from rlt.quickstart.students import STUDENTS, compare_students
from rlt.rundir.samples import write_samples

GOOD, VAGUE = "2+3=5\n5*4=0", "The rest is clear."


def row(problem: str, index: int, r_ss: float, explanation: str, missing_tag: float = 0.0) -> dict[str, Any]:
    return {
        "problem_id": problem,
        "sample_index": index,
        "question": "2+3*4",
        "solution": "0",
        "explanation": explanation,
        "reward": r_ss - 0.1 - missing_tag,
        "r_ss": r_ss,
        "r_kl": 0.1,
        "missing_tag": missing_tag,
    }


BEFORE = [
    row("a", 0, -2.0, VAGUE),
    row("a", 1, -4.0, VAGUE),
    row("b", 0, -1.0, GOOD),
    row("b", 1, -3.0, VAGUE),
    row("c", 0, -2.0, VAGUE),
    row("c", 1, -2.0, "2+3=6\n6*4=4"),
]
# per problem: a -3 -> -2 (+1), b -2 -> 0 (+2), c -2 -> 1 (+3)
AFTER = [
    row("c", 0, 1.0, GOOD),
    row("c", 1, 1.0, GOOD),
    row("a", 0, -2.0, GOOD),
    row("a", 1, -2.0, VAGUE),
    row("b", 0, 0.0, GOOD),
    row("b", 1, 0.0, GOOD),
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for step, rows in ((0, BEFORE), (10, BEFORE), (20, AFTER)):
        write_samples(tmp_path / "samples", f"eval_step_{step:06d}", rows)
    write_samples(tmp_path / "samples", "step_000001", BEFORE)
    return tmp_path


def test_the_first_evaluation_is_compared_with_the_last(run_dir):
    comparison = compare(evaluations(run_dir))
    assert (comparison.step, comparison.num_problems, comparison.num_samples) == (20, 3, 2)
    r_ss = comparison.changes["r_SS"]
    assert r_ss.before == pytest.approx(-7 / 3)
    assert r_ss.after == pytest.approx(-1 / 3)
    # differences 1, 2, 3: as in test_intervals
    assert r_ss.difference.mean == pytest.approx(2.0)
    assert r_ss.difference.low == pytest.approx(-0.4841, abs=1e-4)
    assert comparison.changes["good explanations"].before == pytest.approx(1 / 6)
    assert comparison.changes["good explanations"].after == pytest.approx(5 / 6)
    assert comparison.changes["faulty explanations"].before == pytest.approx(1 / 6)


def test_an_interval_that_holds_zero_is_no_improvement(run_dir):
    comparison = compare(evaluations(run_dir))
    assert not comparison.is_real
    assert "NOT shown" in summary(comparison)


def test_a_clear_rise_is_an_improvement():
    after = [row(r["problem_id"], r["sample_index"], r["r_ss"] + 1, GOOD) for r in BEFORE]
    comparison = compare({0: BEFORE, 5: after})
    assert comparison.is_real
    assert summary(comparison).startswith("The explanations became better")


def test_a_vanishing_format_penalty_is_no_improvement():
    before = [*BEFORE[:5], row("c", 1, -2.0, VAGUE, missing_tag=1.0)]  # 5 of 6 closed: 83 %
    after = [row(r["problem_id"], r["sample_index"], r["r_ss"] + 1, GOOD) for r in BEFORE]
    assert not compare({0: before, 5: after}).is_real


def test_a_score_that_is_no_number_is_refused():
    broken = [*AFTER[:5], row("b", 1, float("nan"), GOOD)]
    with pytest.raises(DataError, match="sample 1 of held-out problem b has no finite score"):
        compare({0: BEFORE, 5: broken})


def test_a_run_without_two_evaluations_is_refused(tmp_path):
    write_samples(tmp_path / "samples", "eval_step_000000", BEFORE)
    with pytest.raises(DataError, match="holds 1 evaluations"):
        evaluations(tmp_path)


def test_the_example_is_the_median_problem(run_dir):
    text = example(evaluations(run_dir))
    assert text.splitlines() == [
        "question: 2+3*4   solution: 0   (from left to right, last digit only)",
        "before RL   (reward -1.100  r_SS -1.000  r_KL +0.100)",
        "    2+3=5",
        "    5*4=0",
        "after RL   (reward -0.100  r_SS +0.000  r_KL +0.100)",
        "    2+3=5",
        "    5*4=0",
    ]


def test_the_table_shows_shares_in_percent(run_dir):
    lines = table(compare(evaluations(run_dir))).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "r_SS",
        "-2.333",
        "-0.333",
        "+2.000 [-0.484, +4.484]",
    ]
    assert lines[5].split("|")[2].strip() == "100.0 %"


def test_a_plot_is_drawn(run_dir, tmp_path):
    by_step = evaluations(run_dir)
    right = {name: {"a": 0.5, "b": 0.75} for name in STUDENTS}
    metrics = [{"step": 1, "time": 0.0, "reward": -1.0, "r_ss": -0.9, "r_kl": 0.1}]
    plot = write_plot(tmp_path / "plot.png", compare(by_step), compare_students(right), by_step, metrics)
    assert plot.read_bytes().startswith(b"\x89PNG")
