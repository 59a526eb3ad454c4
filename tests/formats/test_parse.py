"""Cutting thought and solution out of an assistant turn."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt.errors import DataError
from rlt.formats.parse import parse_assistant_turn, parse_tagged, parse_think
from rlt.formats.tags import TAG_STYLES

BESPOKE, R1 = TAG_STYLES["bespoke"], TAG_STYLES["r1"]
STYLES = pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)


def turn(thought: str, solution: str, tags=BESPOKE) -> str:
    outer, inner = tags.thought, tags.solution
    return f"{outer.open}{thought}{outer.close}\n\n{inner.open}{solution}{inner.close}"


@STYLES
def test_parts_come_back_without_outer_white_space(tags):
    assert parse_tagged(turn("\n\n Two and two. \n", "\n\n4\n\n", tags), tags) == ("Two and two.", "4")


@STYLES
def test_padding_may_be_missing(tags):
    assert parse_tagged(turn("a", "b", tags), tags) == ("a", "b")


def test_explanation_tags_are_ordinary_text_in_a_student_turn():
    assert parse_tagged(turn("<|begin_of_explanation|> x", "b"), BESPOKE)[0] == "<|begin_of_explanation|> x"


def test_missing_tag_is_named():
    """Tags missing gave a bare IndexError."""
    for tag in (BESPOKE.thought.open, BESPOKE.thought.close, BESPOKE.solution.open, BESPOKE.solution.close):
        with pytest.raises(DataError) as error:
            parse_tagged(turn("a", "b").replace(tag, ""), BESPOKE)
        assert str(error.value) == f"the assistant turn lacks {tag} (was it cut off?)"


def test_all_missing_tags_of_plain_text_are_named():
    with pytest.raises(DataError, match=r"end_of_thought.*begin_of_solution.*end_of_solution"):
        parse_tagged("just an answer", BESPOKE)


def test_doubled_tag_is_named_with_its_count():
    """A delimiter quoted inside a trace gave "too many values to unpack"."""
    with pytest.raises(DataError, match=r"has <\|end_of_thought\|> 2 times, must be once"):
        parse_tagged(turn("I close with <|end_of_thought|>.", "b"), BESPOKE)


def test_wrong_order_is_named():
    swapped = BESPOKE.solution.wrap("b") + BESPOKE.thought.wrap("a")
    with pytest.raises(DataError, match=r"has <\|begin_of_solution\|> before <\|end_of_thought\|>"):
        parse_tagged(swapped, BESPOKE)
    nested = turn("a", "b").replace("<|end_of_thought|>", "") + "<|end_of_thought|>"
    with pytest.raises(DataError, match="before"):
        parse_tagged(nested, BESPOKE)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Sure! " + turn("a", "b"), "before <|begin_of_thought|>: 'Sure!'"),
        (
            turn("a", "b").replace("\n\n", " so "),
            "between <|end_of_thought|> and <|begin_of_solution|>: 'so'",
        ),
        (turn("a", "b") + "<|im_end|>", "after <|end_of_solution|>: '<|im_end|>'"),
    ],
)
def test_text_outside_the_blocks_is_not_lost_silently(text, where):
    with pytest.raises(DataError) as error:
        parse_tagged(text, BESPOKE)
    assert str(error.value) == f"the assistant turn has text {where}"


@STYLES
def test_empty_solution_is_an_error_and_empty_thought_is_not(tags):
    with pytest.raises(DataError, match="empty solution"):
        parse_tagged(turn("a", " \n", tags), tags)
    assert parse_tagged(turn(" \n", "b", tags), tags) == ("", "b")


def test_think_with_a_bare_solution():
    assert parse_think("<think>\nTwo and two.\n</think>\n\nIt is 4.\n") == ("Two and two.", "It is 4.")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>still going", "</think> 0 times"),
        ("thinking</think>4", "<think> 0 times"),
        ("<think>a</think>b</think>4", "</think> 2 times"),
        ("</think>a<think>4", "</think> before <think>"),
        ("Well, <think>a</think>4", "text before <think>: 'Well,'"),
        ("<think>a</think> \n", "empty solution"),
    ],
)
def test_think_that_does_not_parse(text, reason):
    with pytest.raises(DataError, match=reason):
        parse_think(text)


def test_a_turn_is_read_in_the_style_it_was_written_in():
    quoting = turn("R1 writes <think>", "b")
    assert parse_assistant_turn(quoting, BESPOKE) == ("R1 writes <think>", "b")
    assert parse_assistant_turn(quoting, R1) == ("R1 writes <think>", "b")
    assert parse_assistant_turn(turn("a", "b", R1), BESPOKE) == ("a", "b")
    assert parse_assistant_turn("<think>a</think>b", BESPOKE) == ("a", "b")


def test_a_cut_solution_block_is_never_taken_for_a_bare_solution():
    with pytest.raises(DataError, match="lacks </solution>"):
        parse_assistant_turn("<think>a</think>\n<solution>b", R1)
    with pytest.raises(DataError, match=r"lacks <\|begin_of_solution\|>, <\|end_of_solution\|>"):
        parse_assistant_turn("<|begin_of_thought|>a<|end_of_thought|>b", BESPOKE)


TAG_TEXT = [string for style in TAG_STYLES.values() for string in style.strings]
TAG_PIECES = st.sampled_from(
    ["<|", "|>", "<|im_end|>", "end_of_thought", "<", ">", "/think", "\n\n", " ", "…"]
)
CONTENT = st.lists(st.one_of(st.text(), TAG_PIECES), max_size=8).map("".join)


@STYLES
@given(thought=CONTENT, solution=CONTENT)
def test_wrap_then_parse_gives_the_stripped_parts(tags, thought, solution):
    text = f"{tags.thought.wrap(thought)}\n\n{tags.solution.wrap(solution)}"
    if not solution.strip() or any(text.count(tag) != 1 for tag in tags.strings[:4]):
        with pytest.raises(DataError):
            parse_tagged(text, tags)
    else:
        assert parse_tagged(text, tags) == (thought.strip(), solution.strip())


@STYLES
@given(cut=st.data())
def test_a_turn_cut_anywhere_is_refused(tags, cut):
    text = turn("\n\nSo 2+2.\n\n", "\n\n4\n\n", tags)
    end = cut.draw(st.integers(0, len(text) - 1))
    with pytest.raises(DataError):
        parse_tagged(text[:end], tags)


@STYLES
@given(text=st.lists(st.one_of(st.sampled_from(TAG_TEXT), st.text(max_size=3)), max_size=10).map("".join))
def test_any_text_parses_or_is_refused_with_a_sentence(tags, text):
    with contextlib.suppress(DataError):  # any other exception fails the test
        thought, solution = parse_assistant_turn(text, tags)
        assert thought in text
        assert solution
        assert solution in text
