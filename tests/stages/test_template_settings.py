"""What a stage says of a chat template before any weights load, as a dry run does."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from helpers.families import family_tokenizer
from helpers.stage_runs import sft_words, student_words

from rlt.config.compose import compose
from rlt.config.resolve import resolve
from rlt.data.model_layout import ModelLayout, write_layout
from rlt.errors import ConfigError, ModelError
from rlt.formats.tags import TAG_STYLES
from rlt.stages import student_sft, teacher_sft

NATIVE = "layout.tags=native"


@pytest.fixture(scope="module")
def model(save_tiny, tmp_path_factory):
    """Return a function that gives the folder of a tiny model with a family's template."""
    folder = tmp_path_factory.mktemp("families")

    def of(name: str) -> Path:
        if not (folder / name).is_dir():
            save_tiny(family_tokenizer(name), folder / name)
        return folder / name

    return of


def check_student(folder: Path, *words: str) -> None:
    student_sft.check(resolve(compose(student_words(folder, folder / "later.jsonl", folder / "run", *words))))


def check_teacher(folder: Path, *words: str) -> None:
    made = sft_words("teacher_sft", folder, folder / "later.jsonl", folder / "run", *words)
    teacher_sft.check(resolve(compose(made)))


OFF = "layout.chat_template_kwargs={enable_thinking: false}"


@pytest.mark.parametrize(
    ("name", "words", "error", "said"),
    [
        ("qwen3", (NATIVE, OFF), ModelError, r"leaves the thought empty .* or layout\.tags=bespoke"),
        (
            "qwen3",
            (OFF.replace("thinking", "thinkin"),),
            ConfigError,
            r"enable_thinkin, .* did you mean enable_thinking\?",
        ),
        ("gemma", (), ModelError, r"System role not supported.* an empty layout\.student_prompt$"),
        ("smolvlm", (NATIVE,), ModelError, "reads each message as a list of parts"),
    ],
)
def test_a_template_that_does_not_fit_is_one_sentence_before_weights_load(name, words, error, said, model):
    with pytest.raises(error, match=said):
        check_student(model(name), *words)


def test_the_remedies_in_these_sentences_help(model):
    check_student(model("qwen3"), OFF)  # bespoke
    check_student(model("qwen3"), NATIVE, OFF.replace("false", "true"))
    for check, prompt in ((check_student, "student"), (check_teacher, "teacher")):
        for tags in ("native", "bespoke", "r1"):
            check(model("gemma"), f"layout.tags={tags}", f"layout.{prompt}_prompt=")


def test_what_a_template_makes_of_the_tags_is_told(model, caplog):
    caplog.set_level(logging.INFO)
    check_student(model("qwen3_5_think"))
    assert (
        "opens the thought in its prompts (<think>), so explanations continue it, and layout.tags=bespoke"
        in (caplog.text)
    )
    caplog.clear()
    check_student(model("qwen3_5_nothink"), NATIVE)
    assert "leaves thoughts empty unless enable_thinking is true, so it is set to true" in caplog.text
    caplog.clear()
    check_student(model("qwen3_5_think"), NATIVE)
    assert "opens the thought" not in caplog.text


def test_a_teacher_from_before_a_templates_own_turn_is_told_of(model, tmp_path, caplog):
    """Qwen3 writes an empty thought before an answer, which prompts of layout version 1 did not have."""
    folder = shutil.copytree(model("qwen3"), tmp_path / "teacher")
    prompt = TAG_STYLES["bespoke"].explanation.open  # any text is a prompt here
    write_layout(folder, ModelLayout("teacher", "bespoke", prompt, None))
    check_teacher(folder, "layout.override=true")
    assert "was trained by an earlier version" in caplog.text
    caplog.clear()
    write_layout(folder, ModelLayout("teacher", "bespoke", prompt, None, chat_template_kwargs={}))
    check_teacher(folder, "layout.override=true")
    assert "was trained by an earlier version" not in caplog.text
