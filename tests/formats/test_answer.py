"""The part of a student's turn that is graded, in whichever tags it is written."""

import pytest

from rlt.formats.answer import read_answer
from rlt.formats.tags import TAG_STYLES
from rlt.formats.turns import turn_style

BESPOKE = TAG_STYLES["bespoke"]
THOUGHT, SOLUTION = BESPOKE.thought, BESPOKE.solution


@pytest.mark.parametrize(
    ("turn", "text", "whole", "well_formed", "unfinished"),
    [
        (THOUGHT.wrap("Maybe 3.") + SOLUTION.wrap(r"\boxed{4}"), r"\boxed{4}", False, True, False),
        (THOUGHT.wrap("3?") + f"{SOLUTION.open}\n\n4 an", "4 an", False, False, False),
        (SOLUTION.wrap("3") + SOLUTION.wrap("4"), "4", False, False, False),
        (THOUGHT.wrap("3?") + "It is 4.", "It is 4.", False, False, False),
        (f"{THOUGHT.open}\n\nMaybe 3, or", f"{THOUGHT.open}\n\nMaybe 3, or", True, False, True),
        ("It is 4. ", "It is 4.", True, False, False),
        ("", "", True, False, False),
        ("<think>3?</think> It is 4.", "It is 4.", False, True, False),
        ("<think>3?</think>\n<solution>4</solution>", "4", False, True, False),
        ("3? </think> It is 4.", "3? </think> It is 4.", True, False, False),
    ],
)
def test_what_is_graded(turn, text, whole, well_formed, unfinished):
    answer = read_answer(turn, turn_style(BESPOKE))
    assert (answer.text, answer.is_whole_turn) == (text, whole)
    assert (answer.is_well_formed, answer.is_unfinished) == (well_formed, unfinished)


def test_a_thought_whose_opening_tag_stood_in_the_prompt():
    assert read_answer("3? </think> It is 4.", turn_style(TAG_STYLES["r1"])).text == "It is 4."
