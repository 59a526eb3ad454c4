"""Which forms a prompt may have, and that a slip in one is not taken for the prompt's text."""

import pytest

from rlt.config.compose import compose
from rlt.config.prompts import check_prompt
from rlt.config.resolve import prompt_files, resolve
from rlt.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "prompt", "expected"),
    [
        ("teacher_prompt", "original:/nowhere", "git clone https://github.com/SakanaAI/RLT /nowhere"),
        ("teacher_prompt", "original:", "git clone https://github.com/SakanaAI/RLT DIR"),
        ("teacher_prompt", "original", "write original:DIR for that of the original release."),
        ("teacher_prompt", "Released", "write original:DIR for that of the original release."),
        ("teacher_prompt", "Original:x", "write original:x to read the prompt from there."),
        ("teacher_prompt", "original=x", "write original:x to read the prompt from there."),
        ("teacher_prompt", "from_dataset:a/b", "a dataset's system column is the student's: take default"),
        ("student_prompt", "original:x", "is the teacher's: take from_dataset, or from_dataset:NAME"),
        ("student_prompt", "released", "write from_dataset, or from_dataset:NAME for that of the original"),
        ("student_prompt", "from-dataset:a/b", "write from_dataset:a/b to read the prompt from there."),
        ("student_prompt", "FromDataset: a/b", "write from_dataset:a/b to read the prompt from there."),
        ("student_prompt", "from_dataset:", "names no dataset: write from_dataset:NAME, as in"),
        ("student_prompt", "from_dataset:no.jsonl", "names a dataset that does not exist: give a file"),
        ("student_prompt", "file : x", "write file:x to read the file."),
    ],
)
def test_a_slip_is_one_sentence(name, prompt, expected):
    with pytest.raises(ConfigError) as caught:
        check_prompt(name, prompt)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "Original: explain the solution.", "Think from dataset: yes no", "Hi"])
def test_a_text_stays_a_text(text):
    check_prompt("teacher_prompt", text)
    check_prompt("student_prompt", text)


def test_a_possible_hub_name_is_left_alone():
    check_prompt("student_prompt", "from_dataset:bespokelabs/Bespoke-Stratos-17k")


def test_what_a_prompt_is_read_from_is_an_input_of_the_run(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    prompts = ("layout.teacher_prompt=original:~/RLT", "layout.student_prompt=from_dataset:a/b")
    assert prompt_files(resolve(compose(["run_cfg=teacher_rl", *prompts]))) == {
        "layout.teacher_prompt": "/h/RLT/custom_data/teacher_data.py",
        "layout.student_prompt": "a/b",
    }
