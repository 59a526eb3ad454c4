"""How far the student is from a trace, by hand, and the choice by it."""

from __future__ import annotations

import json

import pytest
import torch

from rlt.config.schema import SelectSettings
from rlt.records import Problem, Trace
from rlt.rewards.formula import RewardInputs
from rlt.traces.distance import distances, measure_of
from rlt.traces.select import select, summarize_selection


def inputs(student: list[float], teacher: list[float] | None) -> RewardInputs:
    as_tensor = None if teacher is None else torch.tensor(teacher, dtype=torch.float64)
    student_T = torch.tensor(student, dtype=torch.float64)
    return RewardInputs(torch.tensor([-1.0]), student_T, as_tensor, len(student), True, False)


def trace(index: int, said: dict | str | None, *, problem: str = "p", **extra) -> Trace:
    return Trace(Problem(problem, problem, "s", extra={"breakdown": said, **extra}), index, "text")


def test_measures_by_hand():
    # student: mean(2, 4) = 3;  teacher less student: mean(-1 + 2, -0.5 + 4) = 2.25
    assert distances(inputs([-2.0, -4.0], [-1.0, -0.5])) == {"student_nll": 3.0, "log_ratio": 2.25}
    assert distances(inputs([-2.0, -4.0], None)) == {"student_nll": 3.0}
    assert distances(inputs([], [])) == {}
    assert distances(inputs([-2.0, float("-inf")], [-1.0, -1.0])) == {}  # no number


GROUP = [
    trace(0, {"log_ratio": 0.5, "student_nll": 3.0}),
    trace(1, {"log_ratio": 2.0, "student_nll": 1.0}),
    trace(2, {"log_ratio": -1.0, "student_nll": 2.0}),
    trace(3, {"log_ratio": 9.0, "student_nll": 9.0}, well_formed=False),
    trace(4, None, why="too long: 99 tokens"),
]


@pytest.mark.parametrize(("rule", "winner"), [("nearest", 2), ("farthest", 1)])
def test_the_student_is_nearest_to_one_and_farthest_from_another(rule, winner):
    decisions = select(GROUP, [None] * 5, SelectSettings(rule=rule), seed=0)
    assert [i for i, decision in enumerate(decisions) if decision.selected] == [winner]
    assert (decisions[3].why, decisions[4].why) == ("not well-formed", "no distance from the student")
    assert decisions[4].detail == "too long: 99 tokens"


def test_measures_are_not_mixed():
    """One trace without a teacher: all are compared by what the student alone says."""
    mixed = [GROUP[0], trace(1, {"student_nll": 5.0}), GROUP[2]]
    assert measure_of(GROUP) == "log_ratio"
    assert measure_of(mixed) == "student_nll"
    farthest = select(mixed, [None] * 3, SelectSettings(rule="farthest"), seed=0)
    assert [decision.selected for decision in farthest] == [False, True, False]
    assert measure_of([trace(0, {"log_ratio": 1.0}), trace(1, {"student_nll": 1.0})]) is None
    assert measure_of([trace(0, {"r_kl": 1.0}), trace(1, "no JSON"), trace(2, None)]) is None


def test_a_breakdown_may_be_text_and_the_summary_shows_what_was_chosen():
    rows = [trace(0, json.dumps({"student_nll": 1.0})), trace(1, json.dumps({"student_nll": 4.0}))]
    decisions = select(rows, [None] * 2, SelectSettings(rule="farthest"), seed=0)
    assert summarize_selection(rows, decisions)["distance"] == {
        "measure": "student_nll",
        "read": {"traces": 2, "mean": 2.5, "lowest": 1.0, "highest": 4.0},
        "selected": {"traces": 1, "mean": 4.0, "lowest": 4.0, "highest": 4.0},
    }
    bare = [trace(0, None)]
    kept = select(bare, [None], SelectSettings(rule="none"), seed=0)
    assert summarize_selection(bare, kept)["distance"] is None
