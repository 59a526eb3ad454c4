"""Cutting thought and solution out of an assistant turn."""

import contextlib

import pytest
from helpers.original_program import load_module
from hypothesis import given
from hypothesis import strategies as st

from rlt.errors import DataError
from rlt.formats.parse import parse_assistant_turn, parse_first, parse_tagged, parse_think
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
    assert str(error.value).startswith(f"the assistant turn has text {where} (data.tag_match=first ")


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


ODD_TURNS = {
    "text after the end tag": (turn("a", "b") + "\n\nHope this helps!", ("a", "b")),
    "text before and between": ("Sure. " + turn("a", "b").replace("\n\n", " so "), ("a", "b")),
    "a second solution": (turn("a", "b") + BESPOKE.solution.wrap("c"), ("a", "b")),
    "a solution quoted in the thought": (turn(f"I write {BESPOKE.solution.wrap('c')}.", "b"), None),
    "an end tag quoted in the thought": (turn("I close with <|end_of_thought|> now", "b"), None),
    "an opening tag quoted in the thought": (
        turn("a <|begin_of_thought|> b", "c"),
        ("a <|begin_of_thought|> b", "c"),
    ),
    "an end tag before all": ("<|end_of_solution|>" + turn("a", "b"), ("a", "b")),
    "solution first": (BESPOKE.solution.wrap("b") + BESPOKE.thought.wrap("a"), ("a", "b")),
}


@pytest.mark.parametrize("name", ODD_TURNS)
def test_the_first_match_of_each_pair_counts(name):
    """By hand; the original's own function is asked below."""
    text, expected = ODD_TURNS[name]
    if expected is None:
        solution = "c" if "solution" in name else "b"
        thought = text.split(BESPOKE.thought.open)[1].split(BESPOKE.thought.close)[0].strip()
        expected = (thought, solution)
    assert parse_first(text, BESPOKE) == expected
    assert parse_assistant_turn(text, BESPOKE, "first") == expected


@pytest.mark.original
@pytest.mark.parametrize("name", ODD_TURNS)
def test_the_original_reads_odd_turns_so(original, name):
    config = load_module(original, "custom_data", "reasoning_datasets_info").STRATOS_CONFIG
    _, thought, _, solution = config.extract_reasoning_message_content(s=ODD_TURNS[name][0])
    assert (thought.strip(), solution.strip()) == parse_first(ODD_TURNS[name][0], BESPOKE)


@STYLES
@pytest.mark.parametrize("which", ["thought", "solution"])
def test_a_pair_that_is_not_closed_is_an_error(tags, which):
    text = turn("a", "b", tags).replace(getattr(tags, which).close, "")
    with pytest.raises(DataError, match=r"lacks .* … .* \(was it cut off\?\)"):
        parse_first(text, tags)


def test_the_first_match_reads_the_other_style_and_a_bare_solution():
    assert parse_assistant_turn("Well: <think>a</think> b", BESPOKE, "first") == ("a", "b")
    assert parse_assistant_turn("Well: " + turn("a", "b", R1), BESPOKE, "first") == ("a", "b")
    assert parse_assistant_turn(turn("<think>", "b"), BESPOKE, "first") == ("<think>", "b")


def test_a_row_that_first_would_read_says_so():
    for text in (turn("a", "b") + " Bye", turn("a", "b") + BESPOKE.solution.wrap("c")):
        with pytest.raises(DataError, match=r"data\.tag_match=first takes the first of each tag pair"):
            parse_tagged(text, BESPOKE)
