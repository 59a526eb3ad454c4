"""The system prompts that a configuration asks for; reading `file:PATH` is why this is not in `formats`."""

from __future__ import annotations

from pathlib import Path

from rlt.data.skythought import PREFIX as SKYTHOUGHT
from rlt.data.skythought import read_skythought_prompt
from rlt.errors import ConfigError
from rlt.formats.prompts import default_student_prompt, default_teacher_prompt
from rlt.formats.tags import TagStyle

FROM_DATASET = "from_dataset"
TEXT = "text:"
"""Before a prompt's text that might be read as something else; what the program itself fills in has it."""


def teacher_prompt(setting: str, tags: TagStyle) -> str:
    """Return the teacher's system prompt; empty means none."""
    return default_teacher_prompt(tags) if setting == "default" else _text(setting, "layout.teacher_prompt")


def student_prompt(setting: str, tags: TagStyle) -> str | None:
    """Return the student's system prompt, or None when each row brings its own."""
    if setting == FROM_DATASET:
        return None
    if setting.startswith(SKYTHOUGHT):
        return read_skythought_prompt(setting.removeprefix(SKYTHOUGHT))
    return default_student_prompt(tags) if setting == "default" else _text(setting, "layout.student_prompt")


def _text(setting: str, key: str) -> str:
    """Return the text itself, or a file's content: every byte of it, since a published prompt is data.

    A byte-order mark, CR LF and a newline at the end are part of the prompt.
    """
    if not setting.startswith("file:"):
        return setting.removeprefix(TEXT)
    path = Path(setting.removeprefix("file:"))
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{key}` names the file {path}, which cannot be read as text: {error}") from error
