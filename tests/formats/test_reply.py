"""Thought and answer of a sampled turn."""

import pytest

from rlt.formats.reply import Reply, ReplyReader
from rlt.formats.tags import TAG_STYLES
from rlt.formats.turns import turn_style
from rlt.records import Completion

TAGS = TAG_STYLES["bespoke"]
GOOD = f"{TAGS.thought.wrap('1+2=3')}\n\n{TAGS.solution.wrap('1 + 2')}"


@pytest.fixture
def read(tiny_tokenizer):
    """Return a function from text to the reply in it."""
    reader = ReplyReader(tiny_tokenizer, turn_style(TAGS))

    def read(text: str, finish_reason: str = "stop") -> Reply:
        ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        return reader(Completion(tuple(ids), (), finish_reason))

    return read


def test_a_whole_turn(read):
    # one token of padding on either side of five characters
    assert read(f"{GOOD}<|im_end|>") == Reply("1+2=3", "1 + 2", 7)
    assert read(GOOD) == Reply("1+2=3", "1 + 2", 7)  # a stop id need not be part of the sample


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(TAGS.thought.close, ""),
        GOOD.removesuffix(TAGS.solution.close),
        GOOD + TAGS.solution.wrap("3"),
        f"Well. {GOOD}",
        f"{GOOD} I hope it helps.",
        TAGS.thought.wrap("1+2=3") + TAGS.solution.wrap(""),
        GOOD.replace("1+2=3", "1+2<|im_end|>=3"),  # what follows the end of its turn is not the student's
        "",
    ],
)
def test_malformed_turns_have_no_answer(read, text):
    reply = read(text)
    assert reply.answer is None
    assert reply.thought == text.partition("<|im_end|>")[0].strip()


def test_a_turn_that_was_cut_has_no_answer(read):
    assert read(GOOD, "length").answer is None


def test_bytes_that_are_no_text_are_no_error(tiny_tokenizer):
    half = tiny_tokenizer("é", add_special_tokens=False)["input_ids"][:1]
    assert ReplyReader(tiny_tokenizer, turn_style(TAGS))(Completion(tuple(half), (), "stop")) == Reply(
        "\ufffd", None, 1
    )
