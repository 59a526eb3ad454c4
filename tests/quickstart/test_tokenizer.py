"""The tiny tokenizer: any text, single tags, paddings that stay apart, and the same after loading."""

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config

from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import PADDING, TAG_STYLES
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import make_world, vocabulary
from rlt.records import Problem

TAGS = TAG_STYLES["bespoke"]
PROMPTS = ("Explain the solution.", "Think and then solve.")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer([*vocabulary(), *PROMPTS])


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "text",
    [
        "7*9=3\n3+7=0",
        "We go from left to right.",
        "Grüße, 世界 😀\t\r\n\n\n end ",
        " <|begin_of_thought|>",
        "\x00\x7f",
    ],
)
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_tags_and_padding_are_single_entries_but_no_control_tokens(tokenizer):
    for piece in (*TAGS.strings, PADDING):
        assert len(encode(tokenizer, piece)) == 1
    assert not set(TAGS.strings) & set(tokenizer.all_special_tokens)
    assert set(tokenizer.all_special_tokens) == {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_words_of_the_world_are_single_entries(tokenizer):
    for word in ("We", " left", " digit", " solution", "Explain"):
        assert len(encode(tokenizer, word)) == 1
    # four steps of five characters and three line breaks
    assert len(encode(tokenizer, "7*9=3\n3+7=0\n0*3=0\n0+4=4")) == 23


@pytest.mark.parametrize("content", ["4", "0+4=4", "Done.", "a\nb", "(!)", "end ", "=", "😀"])
@pytest.mark.parametrize("tag", TAGS.strings)
def test_nothing_merges_with_a_padding(tokenizer, content, tag):
    pieces = [tag, PADDING, content, PADDING, tag]
    assert encode(tokenizer, "".join(pieces)) == [t for piece in pieces for t in encode(tokenizer, piece)]


def test_a_loaded_copy_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    Qwen2Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path)  # decides which class loads it
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = f"<|im_start|>user\n7*9+7*3+4<|im_end|>\n{TAGS.thought.wrap('We go from left, 世界.')}"
    assert encode(loaded, text) == encode(tokenizer, text)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.added_tokens_decoder == tokenizer.added_tokens_decoder


def test_the_same_words_give_the_same_tokenizer(tokenizer):
    again = build_tokenizer(reversed([*vocabulary(), *PROMPTS]))
    assert again.get_vocab() == tokenizer.get_vocab()


def test_the_chat_is_chatml(tokenizer):
    messages = [{"role": "system", "content": "Think."}, {"role": "user", "content": "2+3*4"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n2+3*4<|im_end|>\n<|im_start|>assistant\n"
    )


def test_samples_are_short(tokenizer):
    teacher = TeacherLayout(tokenizer, TAGS, PROMPTS[0])
    student = StudentLayout(tokenizer, TAGS, PROMPTS[1])
    for row in make_world(0, num_train=100, num_held_out=1).train:
        problem = Problem("", row.question, row.solution)
        prompt, completion = teacher.prompt_ids(problem), teacher.completion_ids(row.reasoning_trace)
        thought = student.explanation_ids(row.reasoning_trace)
        around = student.prefix_ids(problem) + student.suffix(problem).ids
        # the limits of cfgs/run_cfg/quickstart_*.yaml
        assert len(prompt) <= 64
        assert len(completion) <= 48
        assert len(thought) + len(around) <= 128
