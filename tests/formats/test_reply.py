"""Thought and answer of a sampled turn."""

import pytest
from helpers.families import family_tokenizer

from rlt.formats.encode import Piece, encode
from rlt.formats.layout import StudentLayout
from rlt.formats.reply import Reply, ReplyReader
from rlt.formats.tags import NATIVE, TAG_STYLES
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


HARMONY = "<|channel|>analysis<|message|>Two.<|end|><|start|>assistant<|channel|>final<|message|>4"


@pytest.mark.parametrize(
    ("name", "text", "thought", "answer"),
    [
        ("qwen3_5_think", "Two.\n</think>\n\n4", "Two.", "4"),
        ("qwen3_5_think", "Two or 4", "Two or 4", None),
        ("qwen3", "<think>\nTwo.\n</think>\n\n4", "Two.", "4"),
        ("qwen3", "Two.\n</think>\n\n4", "Two.\n</think>\n\n4", None),
        ("qwen3_5_nothink", "4", "", "4"),
        ("gemma4_v5", "<|channel>thought\nTwo.\n<channel|>4", "Two.", "4"),
        ("gptoss", HARMONY, "Two.", "4"),
        ("lfm2_2_5_v2", "<think>Two.</think>4", "Two.", "4"),
    ],
)
def test_replies_in_a_models_own_form_end_with_its_turn_alone(name, text, thought, answer):
    """Tokens around a thought, such as `<|end|>` of gpt-oss, are added tokens: they do not end the reply."""
    tokenizer = family_tokenizer(name)
    layout = StudentLayout(tokenizer, NATIVE, "", asks_only=True)
    ids = encode(tokenizer, [Piece(text, trusted=True)]).ids
    reader = ReplyReader(tokenizer, layout.style)
    for end, reason in (([layout.turn_end_id], "stop"), ([], "stop"), ([], "length")):
        reply = reader(Completion((*ids, *end), (), reason))
        cut = reason == "length"
        assert (reply.thought, reply.answer) == ((text, None) if cut else (thought, answer))
    num_thought = len(encode(tokenizer, [Piece(thought, trusted=True)]).ids)
    reply = reader(Completion(tuple(ids), (), "stop"))
    assert num_thought <= reply.thought_tokens <= (len(ids) if answer is None else num_thought + 2)
