"""The reward of student RL, by hand, and against TinyZero's."""

import pytest

from rlt.formats.reply import Reply
from rlt.records import Problem
from rlt.rewards.correctness import CorrectnessReward, CorrectnessWeights
from rlt.tasks.countdown import tinyzero_reward
from rlt.tasks.graders import GRADERS

WEIGHTS = CorrectnessWeights(right=1.0, form=0.1)


def problem(reference: str, answer: str | None = None) -> Problem:
    return Problem("p", "q", reference, answer=answer)


@pytest.mark.parametrize(
    ("answer", "reward", "correct", "well_formed"),
    [
        ("8 / (3 - 8 / 3)", 1.0, 1, 1),
        ("8 * 3", 0.1, 0, 1),  # 24 without two of the numbers
        ("twenty-four", 0.0, 0, 0),  # no expression
        (None, 0.0, 0, 0),  # no answer in the student's tags
    ],
)
def test_countdown(answer, reward, correct, well_formed):
    reference = "8 / (3 - 8 / 3)"
    with GRADERS["countdown"](1.0) as grader:
        pays = CorrectnessReward(grader, WEIGHTS)
        reply = Reply("some thought", answer, 3)
        (score,) = pays.score([problem(reference)], [reply])
    assert score.reward == reward
    assert score.parts == {"correct": correct, "well_formed": well_formed, "explanation_tokens": 3}
    assert pays.has_form(reply) == bool(well_formed)
    if answer is not None:
        assert score.reward == tinyzero_reward(answer, reference)


def test_mathematics_by_the_rows_answer_and_other_weights():
    rows = [problem("It is a half.", answer=r"\frac{1}{2}"), problem("0.5"), problem("1/3"), problem("1/3")]
    replies = [Reply("", answer, 0) for answer in ("0.5", r"\boxed{\frac12}", "0.5", None)]
    with GRADERS["math"](5.0) as grader:
        scores = CorrectnessReward(grader, CorrectnessWeights(right=2.0, form=0.5)).score(rows, replies)
    assert [score.reward for score in scores] == [2.0, 2.0, 0.5, 0.0]
