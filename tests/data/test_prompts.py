"""What a prompt setting means, and that a file's bytes are the prompt."""

import hashlib
from pathlib import Path

import pytest

from rlt.config.original.prompt import PROMPT_SHA256, read_teacher_prompt
from rlt.data.prompts import student_prompt, teacher_prompt
from rlt.errors import ConfigError, DataError
from rlt.formats.prompts import default_student_prompt, default_teacher_prompt
from rlt.formats.tags import TAG_STYLES

BESPOKE, R1 = TAG_STYLES["bespoke"], TAG_STYLES["r1"]


@pytest.mark.parametrize(
    "content",
    [
        "Think first.",
        "Ends in a newline.\n",
        "two\r\nlines\r\n",
        "\ufeffA byte-order mark.",
        " \t indented, literal \\n\\n, é 😀 \u2028 ",
        "",
    ],
)
def test_every_byte_of_a_file_is_the_prompt(tmp_path, content):
    path = tmp_path / "prompt.txt"
    path.write_bytes(content.encode())
    assert student_prompt(f"file:{path}", BESPOKE) == content
    assert teacher_prompt(f"file:{path}", BESPOKE) == content


def test_a_text_is_itself_and_a_word_is_not():
    assert student_prompt("", BESPOKE) == teacher_prompt("", BESPOKE) == ""
    assert student_prompt(" Think.\n", BESPOKE) == " Think.\n"
    assert student_prompt("default", R1) == default_student_prompt(R1) != default_student_prompt(BESPOKE)
    assert teacher_prompt("default", R1) == default_teacher_prompt(R1) != default_teacher_prompt(BESPOKE)
    assert student_prompt("from_dataset", BESPOKE) is None


@pytest.mark.parametrize("tags", TAG_STYLES.values(), ids=TAG_STYLES)
def test_the_default_prompts_name_the_tags_of_their_style(tags):
    for prompt, pairs in (
        (default_student_prompt(tags), (tags.thought, tags.solution)),
        (default_teacher_prompt(tags), (tags.solution, tags.explanation)),
    ):
        assert all(tag in prompt for pair in pairs for tag in (pair.open, pair.close))


def test_a_file_that_is_no_text_is_one_sentence(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    for name in ("a.txt", "missing.txt"):
        with pytest.raises(ConfigError, match=r"`layout.student_prompt` names the file .*, which cannot be"):
            student_prompt(f"file:{tmp_path / name}", BESPOKE)


OURS = "Explain it.\\n\\n twice "
"""Stands for the released prompt: a literal backslash-n, and a space at the end."""
SHA256 = hashlib.sha256(OURS.encode()).hexdigest()


def checkout(folder: Path, source: str) -> str:
    (folder / "custom_data").mkdir(parents=True, exist_ok=True)
    (folder / "custom_data" / "teacher_data.py").write_text(source)
    return str(folder)


@pytest.mark.parametrize(
    "value",
    [
        repr(OURS),
        'str(\n    "Explain it."\n    "\\\\n\\\\n twice "\n)',
        '"Explain it." + "\\\\n\\\\n" + str(" twice ")',
    ],
)
def test_the_constant_of_a_checkout_is_read_and_nothing_is_run(tmp_path, value):
    source = f"import no_such_module\nraise SystemExit\nSTRATOS_STYLE_TEACHER_PROMPT = {value}\n"
    assert read_teacher_prompt(checkout(tmp_path, source), SHA256) == OURS


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (None, "there is no readable custom_data/teacher_data.py"),
        ("x = 1\n", "writes out no text STRATOS_STYLE_TEACHER_PROMPT"),
        ("STRATOS_STYLE_TEACHER_PROMPT = open('/etc/passwd').read()\n", "writes out no text"),
        ("STRATOS_STYLE_TEACHER_PROMPT = (\n", "writes out no text"),
        ("STRATOS_STYLE_TEACHER_PROMPT = 'another one'\n", "has the sha256 "),
    ],
)
def test_what_is_no_checkout_gets_the_commands_that_make_one(tmp_path, source, why):
    folder = str(tmp_path / "RLT") if source is None else checkout(tmp_path, source)
    with pytest.raises(ConfigError) as caught:
        read_teacher_prompt(folder)
    assert why in (said := str(caught.value))
    assert "git clone https://github.com/SakanaAI/RLT " in said
    assert "checkout 86a3f5c" in said
    assert ("clone https://github.com/SakanaAI/RLT DIR" in said) == (source is not None)  # DIR must be new


@pytest.mark.original
def test_the_released_prompt_comes_out_of_a_real_checkout_byte_for_byte(original):
    text = teacher_prompt(f"original:{original}", BESPOKE)
    assert hashlib.sha256(text.encode()).hexdigest() == PROMPT_SHA256
    assert (len(text), text[-1]) == (1284, " ")
    assert "'\\n\\n'" in text  # a backslash and an n, no line break
    assert "\n" not in text


def test_the_one_prompt_of_another_dataset(tmp_path, write_jsonl, sharegpt):
    """A column `system`, or a system turn; every byte, outer white space included."""
    column = write_jsonl(tmp_path / "a.jsonl", [sharegpt(system=" Think. \\n\n")] * 2)
    assert student_prompt(f"from_dataset:{column}", BESPOKE) == " Think. \\n\n"
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "2+2?"}]
    turn = write_jsonl(tmp_path / "b.jsonl", [{"messages": turns}])
    assert student_prompt(f"from_dataset:{turn}", BESPOKE) == "Think."


@pytest.mark.parametrize(
    ("systems", "why"),
    [
        (["A", "B"], "2 different system prompts"),
        (["A", None], "rows with a system prompt and rows without one"),
        ([None, None], "no row with a system prompt"),
    ],
)
def test_a_dataset_without_one_certain_prompt_is_one_sentence(tmp_path, write_jsonl, systems, why):
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "2+2?", "system": text} for text in systems])
    with pytest.raises(DataError, match=f"from_dataset:{path}.* has {why}.*give file:PATH$"):
        student_prompt(f"from_dataset:{path}", BESPOKE)
