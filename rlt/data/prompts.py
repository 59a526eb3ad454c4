"""The system prompts that a configuration asks for; as files are read, this is not in `formats`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rlt.config.original.prompt import read_teacher_prompt
from rlt.config.original.skythought import read_skythought_prompt
from rlt.config.prompts import place_of
from rlt.config.schema import DATASET_PROMPT, FILE_PROMPT, ORIGINAL_PROMPT, SKYTHOUGHT_PROMPT, TEXT_PROMPT
from rlt.data.sources import read_rows
from rlt.errors import ConfigError, DataError
from rlt.formats.prompts import default_student_prompt, default_teacher_prompt
from rlt.formats.tags import TagStyle

FROM_DATASET = "from_dataset"
_TURNS = ("messages", "conversations")


def teacher_prompt(setting: str, tags: TagStyle) -> str:
    """Return the teacher's system prompt; empty means none."""
    if (folder := place_of(setting, ORIGINAL_PROMPT)) is not None:
        return read_teacher_prompt(folder)
    return default_teacher_prompt(tags) if setting == "default" else _text(setting, "layout.teacher_prompt")


def student_prompt(setting: str, tags: TagStyle) -> str | None:
    """Return the student's system prompt, or None when each row brings its own."""
    if setting == FROM_DATASET:
        return None
    if (source := place_of(setting, DATASET_PROMPT)) is not None:
        return prompt_of_dataset(source.strip())
    if (folder := place_of(setting, SKYTHOUGHT_PROMPT)) is not None:
        return read_skythought_prompt(folder)
    return default_student_prompt(tags) if setting == "default" else _text(setting, "layout.student_prompt")


def _text(setting: str, key: str) -> str:
    """Return the text itself, or a file's content: every byte of it, since a published prompt is data.

    A byte-order mark, CR LF and a newline at the end are part of the prompt.
    """
    name = place_of(setting, FILE_PROMPT)
    if name is None:
        return setting.removeprefix(TEXT_PROMPT)
    path = Path(name)
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{key}` names the file {path}, which cannot be read as text: {error}") from error


@cache
def prompt_of_dataset(source: str) -> str:
    """Return the one system prompt that all rows of a dataset's split `train` carry, byte for byte.

    Raises DataError where rows have none, or several.
    """
    table = read_rows(source)
    found = dict.fromkeys(_system(row.values) for row in table.rows)
    if len(found) == 1 and (text := next(iter(found))):
        return text
    has = (
        "no row with a system prompt"
        if not any(found)
        else f"{len(found)} different system prompts"
        if all(found)
        else "rows with a system prompt and rows without one"
    )
    raise DataError(
        f"`layout.student_prompt=from_dataset:{source}` takes the one text that a dataset's `system` column "
        f"carries, but {table.source} has {has}: put the one that the student was trained with into a file, "
        "and give file:PATH"
    )


def _system(row: Mapping[str, Any]) -> str | None:
    """Return the system prompt of a row: its column `system`, or the turn before the user's."""
    if isinstance(text := row.get("system"), str) and text:
        return text
    turns = next((row[name] for name in _TURNS if isinstance(row.get(name), list)), [])
    first = turns[0] if turns and isinstance(turns[0], dict) else {}
    is_system = "system" in (first.get("role"), first.get("from"))
    text = first.get("content", first.get("value")) if is_system else None
    return text if isinstance(text, str) and text else None
