"""Verdicts beside the drawing: all are there at the end, and a failing grader is not passed over."""

import pytest

from rlt.evaluation.grading import RunningScore
from rlt.evaluation.verdicts import Verdict
from rlt.formats.tags import TAG_STYLES
from rlt.formats.turns import turn_style

TAGS = TAG_STYLES["bespoke"]
CUT = f"{TAGS.thought.open} so it is 4"


def same(answers):
    """Grade by equality."""
    return [Verdict(a.text == a.reference, a.text, a.kind) for a in answers]


def test_every_turn_gets_its_verdict():
    with RunningScore(same, turn_style(TAGS), False) as score:
        for i in range(100):
            score.add(("t", str(i)), TAGS.solution.wrap(str(i % 4)), "1", "math")
        score.add(("t", "cut"), CUT, "4", "math")
        verdicts = score.verdicts()
    assert sum(verdict.correct for verdict in verdicts.values()) == 25
    assert verdicts["t", "5"] == Verdict(True, "1", "math")
    assert verdicts["t", "cut"] == Verdict(False, None, "math")
    assert score.note() == "  24.8% right of 101"


def test_a_cut_thought_is_graded_as_a_whole_where_that_is_asked_for():
    with RunningScore(same, turn_style(TAGS), True) as score:
        score.add(("t", "cut"), CUT, CUT, "math")
        assert score.verdicts() == {("t", "cut"): Verdict(True, CUT, "math")}


def test_a_failing_grader_fails_the_run():
    def broken(answers):
        raise OSError(f"no grader for {len(answers)}")

    with RunningScore(broken, turn_style(TAGS), False) as score:
        score.add(("t", "1"), "1", "1", "math")
        with pytest.raises(OSError, match="no grader for 1"):
            score.verdicts()
