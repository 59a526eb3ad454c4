"""What a prompt setting means, and that a file's bytes are the prompt."""

import pytest

from rlt.data.prompts import student_prompt, teacher_prompt
from rlt.errors import ConfigError
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
