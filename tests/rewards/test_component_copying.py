"""The solution-copy penalty by hand."""

import pytest
from helpers.component_cases import explained

from rlt.rewards.components.copying import CopyPenalty

SOLUTION = "We double 36 and get 72 clips."  # 7 words; 5 sequences of three


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (SOLUTION, -1),
        ("So: we DOUBLE 36, and\n\nthen add.", -2 / 5),  # (we double 36) and (double 36 and)
        ("36 twice makes 72 clips.", 0),
        ("", 0),
    ],
)
def test_the_penalty_is_the_share_of_copied_sequences(text, value):
    assert CopyPenalty(3).values([explained(text, solution=SOLUTION)]) == [pytest.approx(value)]


def test_a_solution_that_is_shorter_than_a_sequence_costs_nothing():
    assert CopyPenalty(8).values([explained(SOLUTION, solution=SOLUTION)]) == [0]
    assert CopyPenalty(7).values([explained(SOLUTION, solution=SOLUTION)]) == [-1]
