"""The part of a student's turn that is graded, in whichever tags it is written."""

import pytest
from helpers.families import family_tokenizer

from rlt.formats.answer import read_answer
from rlt.formats.layout import StudentLayout
from rlt.formats.tags import NATIVE, TAG_STYLES
from rlt.formats.turns import TurnStyle, turn_style

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


def style_of(name: str, tags=NATIVE, *, asks_only: bool = True) -> TurnStyle:
    return StudentLayout(family_tokenizer(name), tags, "", asks_only=asks_only).style


HARMONY = "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}"


@pytest.mark.parametrize(
    ("name", "turn", "text", "well_formed", "unfinished"),
    [
        # the prompt has opened the thought: the turn begins inside of it
        ("qwen3_5_think", "Maybe 7? No.\n</think>\n\nIt is 4.", "It is 4.", True, False),
        ("qwen3_5_think", r"Let me see. Maybe \boxed{7}? Hmm, so", None, False, True),
        ("qwen3_5_think", r"The tags are <solution>7</solution>, I", None, False, True),
        ("deepseek_r1_distill", "So.\n</think>\n\n4", "4", True, False),
        ("nemotron_3_nano", "<think>So.</think>4", "4", False, False),  # opened twice
        # it has not
        ("qwen3", "<think>\n7?\n</think>\n\n4", "4", True, False),
        ("qwen3", "<think>\n7? or", None, False, True),
        ("qwen3", "It is 4.", "It is 4.", False, False),
        # it holds an empty thought
        ("qwen3_5_nothink", "It is 4.", "It is 4.", True, False),
        ("qwen3_5_nothink", "<think>7?</think> 4", "4", False, False),
        # other forms than <think>
        ("gemma4", "<|channel>thought\n7?\n<channel|>It is 4.", "It is 4.", True, False),
        ("gemma4", "<|channel>thought\n7? or", None, False, True),
        ("gptoss", HARMONY.format("7?", "It is 4."), "It is 4.", True, False),
        ("gptoss", "<|channel|>analysis<|message|>7? or", None, False, True),
        ("gptoss", "<|channel|>final<|message|>It is 4.", "It is 4.", False, False),
    ],
)
def test_what_is_graded_of_a_turn_in_a_models_own_form(name, turn, text, well_formed, unfinished):
    answer = read_answer(turn, style_of(name))
    assert answer.text == (turn if text is None else text)
    assert (answer.is_well_formed, answer.is_unfinished) == (well_formed, unfinished)


@pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)
def test_a_cut_thought_of_a_thinking_model_counts_for_nothing_under_any_tags(tags):
    """The finding: such a turn was taken for a finished one, and its guess was graded."""
    for name in ("qwen3_5_think", "deepseek_r1_distill", "nemotron_3_super", "qwen3_8"):
        assert read_answer(r"Let me see. Maybe \boxed{7}? Hmm, so", style_of(name, tags)).is_unfinished
        whole = f"Two.\n\n</think>\n\n{tags.solution.wrap('4')}"
        answer = read_answer(whole, style_of(name, tags))
        assert (answer.text, answer.is_well_formed, answer.is_unfinished) == ("4", True, False)
        assert read_answer("Two.\n</think>\n\nIt is 4.", style_of(name, tags)).text == "It is 4."
    # one whose prompt opens nothing is recognised by its own opening
    for name, turn in (("gemma4", "<|channel>thought\n7?"), ("gptoss", "<|channel|>analysis<|message|>7?")):
        assert read_answer(turn, style_of(name, tags)).is_unfinished
