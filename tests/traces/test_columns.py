"""What a source says of its traces, in every spelling a file can have."""

import pytest

from rlt.errors import DataError
from rlt.records import Problem, Trace
from rlt.traces.columns import is_chosen, is_well_formed, score_of


def trace(text="t", **said):
    return Trace(Problem("p", "q", "s", extra=said), 0, text)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ({"score": -1.5}, -1.5),
        ({"score": "-1.5"}, -1.5),
        ({"reward": 2}, 2.0),
        ({"score": None, "reward": 2}, 2.0),
        ({"score": "good"}, None),
        ({"score": float("nan")}, None),
        ({"score": float("inf")}, None),
        ({"score": True}, None),
        ({}, None),
    ],
)
def test_score(said, score):
    assert score_of(trace(**said)) == score


@pytest.mark.parametrize(
    ("text", "said", "expected"),
    [
        ("t", {}, True),
        ("t", {"finish_reason": "length"}, False),
        ("t", {"finish_reason": "length", "well_formed": True}, True),
        ("t", {"finish_reason": "stop", "well_formed": False}, False),
        ("t", {"well_formed": "False"}, False),
        (" \n", {"well_formed": True}, False),
        (None, {}, False),
    ],
)
def test_well_formed(text, said, expected):
    assert is_well_formed(trace(text, **said)) == expected


@pytest.mark.parametrize(
    ("selected", "expected"), [(None, True), (True, True), (False, False), ("False", False), ("", True)]
)
def test_no_decision_leaves_a_trace_in(selected, expected):
    assert is_chosen(trace(selected=selected)) == expected
    assert is_chosen(trace())


def test_a_decision_that_cannot_be_read_is_refused():
    with pytest.raises(DataError, match=r"`selected` must be true, false or null, got 'perhaps'"):
        is_chosen(trace(selected="perhaps"))
