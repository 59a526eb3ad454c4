"""The file beside a model's weights: every byte comes back, and what cannot be obeyed is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlt.data.model_layout import LAYOUT_FILE, ModelLayout, find_layout, read_layout, write_layout
from rlt.errors import ModelError

TEACHER = ModelLayout(
    "teacher", "bespoke", "Explain.", None, turn_end="<|im_end|>", turn_end_is="end_of_turn"
)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Ends in a newline.\n",
        "two\r\nlines\r\n",
        "\ufeffmark",
        "a \\n\\n literal, é 😀 \u2028 ",
        "default",
    ],
)
def test_every_byte_of_a_prompt_comes_back(prompt, tmp_path: Path):
    layout = replace(TEACHER, teacher_prompt=prompt, student_prompt=prompt[::-1], tags="r1", note="why")
    write_layout(tmp_path, layout)
    assert read_layout(tmp_path) == layout == find_layout(str(tmp_path))


def test_the_file_says_what_other_programs_need(tmp_path: Path):
    assert json.loads(write_layout(tmp_path, TEACHER).read_text()) == {
        "version": 2,
        "role": "teacher",
        "tags": {
            "style": "bespoke",
            "thought": ["<|begin_of_thought|>", "<|end_of_thought|>"],
            "solution": ["<|begin_of_solution|>", "<|end_of_solution|>"],
            "explanation": ["<|begin_of_explanation|>", "<|end_of_explanation|>"],
        },
        "tag_padding": "\n\n",
        "teacher_prompt": "Explain.",
        "student_prompt": None,
        "student_prompt_from_dataset": False,
        "note": None,
        "turn_end": "<|im_end|>",
        "turn_end_is": "end_of_turn",
        "chat_template_kwargs": None,
        "date": None,
    }


def test_switches_and_date_come_back_and_a_file_from_before_them_is_read(tmp_path: Path):
    switches = {"enable_thinking": False, "reasoning_effort": "low", "budget": [1, None]}
    layout = replace(TEACHER, tags="native", chat_template_kwargs=switches, date="2025-01-01")
    path = write_layout(tmp_path, layout)
    assert read_layout(tmp_path) == layout
    assert "thought" not in json.loads(path.read_text())["tags"]  # the chat template says how it is written
    values = json.loads(path.read_text()) | {"version": 1}
    del values["chat_template_kwargs"], values["date"]
    path.write_text(json.dumps(values))
    assert read_layout(tmp_path) == replace(layout, chat_template_kwargs=None, date=None)


def test_a_model_without_it_has_none(tmp_path: Path):
    assert read_layout(tmp_path) is None
    assert find_layout("some-owner/some-model") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 3}, "has version 3, and this program reads 2"),
        ({"version": 0}, "a number from 1 on as `version`"),
        ({"version": "1"}, "a number from 1 on as `version`"),
        ({"role": "judge"}, "`role` must be teacher or student"),
        ({"teacher_prompt": 3}, "`teacher_prompt` must be a text or null"),
        ({"student_prompt_from_dataset": None}, "`student_prompt_from_dataset` must be true or false"),
        ({"more": 1}, "version 2 has no `more`"),
        ({"chat_template_kwargs": "off"}, "`chat_template_kwargs` must be an object or null"),
        ({"date": 2025}, "`date` must be a text or null"),
        ({"tags": {"style": "mine"}}, "its tags and padding are none of this program's"),
        ({"tags": "bespoke"}, "its tags and padding are none of this program's"),
        ({"tag_padding": ""}, "its tags and padding are none of this program's"),
    ],
)
def test_a_file_that_cannot_be_obeyed_is_one_sentence(change, said, tmp_path: Path):
    path = write_layout(tmp_path, TEACHER)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError) as error:
        read_layout(tmp_path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "or remove the file and give tags and prompts yourself" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_broken_file_is_one_sentence(content, tmp_path: Path):
    (tmp_path / LAYOUT_FILE).write_bytes(content)
    with pytest.raises(ModelError, match="does not say how its model was trained"):
        read_layout(tmp_path)


def test_a_missing_field_is_named(tmp_path: Path):
    path = write_layout(tmp_path, TEACHER)
    values = json.loads(path.read_text())
    for name in ("student_prompt", "turn_end"):
        path.write_text(json.dumps({k: v for k, v in values.items() if k != name}))
        with pytest.raises(ModelError, match=f"`{name}` must be a text or null"):
            read_layout(tmp_path)
