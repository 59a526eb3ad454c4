"""rlt_layout.json: the tags and prompts that a model was trained with, stored beside its weights.

Every training stage writes it into the final model and into each checkpoint; every stage that uses the model
reads it (own_layout.py). No tokenizer is read here, and nothing of a chat template is repeated but the
switches and the date that it was given: a model's own tokenizer holds the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rlt.config.files import LAYOUT_FILE
from rlt.errors import ModelError
from rlt.formats.tags import PADDING, TAG_NAMES, TagStyle, tag_style
from rlt.io import hub_file

VERSION = 2
"""Of the file. A file of a later version is refused: it may hold what this program would not obey."""
_SINCE_2 = ("chat_template_kwargs", "date")
"""Fields that a file of version 1 does not have."""
ROLES = ("teacher", "student")


@dataclass(frozen=True)
class ModelLayout:
    """What a model reads and writes. A prompt of None was not in use; an empty one means no system turn.

    Example::

        write_layout(folder, ModelLayout("teacher", "bespoke", "Explain the solution.", None))
        read_layout(folder).teacher_prompt
    """

    role: str
    """What the model was trained as: teacher or student."""
    tags: str
    """The name of its tag style."""
    teacher_prompt: str | None
    """A teacher's own system prompt."""
    student_prompt: str | None
    """A student's own system prompt; in a teacher's file that of the student that judged it."""
    student_prompt_from_dataset: bool = False
    """It is the text that all rows of the training data had in their `system` column."""
    note: str | None = None
    """Why a prompt that was in use is not stored."""
    turn_end: str | None = None
    """The token that ends the model's turn."""
    turn_end_is: str | None = None
    """What distill.turn_end calls it: end_of_turn or end_of_text."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Switches of its chat template, as layout.chat_template_kwargs has them; None is not known."""
    date: str | None = None
    """The date that its chat template was given (layout.date); None if the template writes none."""


def layout_text(layout: ModelLayout) -> str:
    """Return the file's content: the record, with tags and their padding spelled out for other programs."""
    values = asdict(layout)
    tags = {"style": values.pop("tags"), **_spelled_out(tag_style(layout.tags))}
    whole = {"version": VERSION, "role": values.pop("role"), "tags": tags, "tag_padding": PADDING, **values}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def write_layout(folder: Path, layout: ModelLayout) -> Path:
    """Return the path of the file, written whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LAYOUT_FILE
    temporary = path.with_name(f".{LAYOUT_FILE}.tmp")
    temporary.write_text(layout_text(layout), encoding="utf-8")
    temporary.replace(path)
    return path


def read_layout(folder: str | Path) -> ModelLayout | None:
    """Return the record of a model's folder, None where it has none.

    Raises ModelError for a file that cannot be obeyed: broken, of a later version, or with unknown tags.
    """
    path = Path(folder) / LAYOUT_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:  # undecodable bytes, too
        raise _broken(path, f"it is not JSON ({error})") from None
    version = values.get("version") if isinstance(values, dict) else None
    if not isinstance(version, int) or version < 1:
        raise _broken(path, "it must be a JSON object with a number from 1 on as `version`")
    if version > VERSION:
        raise ModelError(
            f"{path} has version {version}, and this program reads {VERSION}: take the version of "
            f"the program that wrote it, or a later one; {_WITHOUT}"
        )
    return _checked(path, values)


_WITHOUT = "or remove the file and give tags and prompts yourself (layout.tags, layout.…_prompt)"


def _checked(path: Path, values: dict[str, Any]) -> ModelLayout:
    """Return the record behind a file's values; ModelError names the first that is not what it must be."""
    texts = {f.name for f in fields(ModelLayout)} - {"role", "tags", "student_prompt_from_dataset"}
    texts -= {"chat_template_kwargs"}
    tags, padding = values.pop("tags", None), values.pop("tag_padding", None)
    if values.pop("version") < 2:
        values |= dict.fromkeys(_SINCE_2)
    if unknown := sorted(values.keys() - {f.name for f in fields(ModelLayout)}):
        raise _broken(path, f"version {VERSION} has no `{unknown[0]}`")
    for name in sorted(texts):
        if name not in values or not isinstance(values[name], str | None):
            raise _broken(path, f"`{name}` must be a text or null")
    if not isinstance(values.get("chat_template_kwargs"), dict | None):
        raise _broken(path, "`chat_template_kwargs` must be an object or null")
    if not isinstance(values.get("student_prompt_from_dataset"), bool):
        raise _broken(path, "`student_prompt_from_dataset` must be true or false")
    if values.get("role") not in ROLES:
        raise _broken(path, f"`role` must be {' or '.join(ROLES)}")
    name = str(tags.get("style")) if isinstance(tags, dict) else None
    style = tag_style(name) if name in TAG_NAMES else None
    if style is None or tags != {"style": style.name, **_spelled_out(style)} or padding != PADDING:
        raise _broken(path, f"its tags and padding are none of this program's ({', '.join(TAG_NAMES)})")
    return ModelLayout(tags=style.name, **values)


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} does not say how its model was trained, because {why}: restore it, {_WITHOUT}")


def _spelled_out(style: TagStyle) -> Mapping[str, list[str]]:
    pairs = {"thought": style.thought, "solution": style.solution, "explanation": style.explanation}
    if style.is_native:  # the chat template says how a thought is written; the teacher's tags are ours
        del pairs["thought"]
    return {name: [tag.open, tag.close] for name, tag in pairs.items()}


def find_layout(model: str, revision: str | None = None, *, download: bool = False) -> ModelLayout | None:
    """Return the record of a folder or of a Hub name, None where there is none.

    Of a Hub name the local cache is looked into; `download` asks the Hub for this one file.
    """
    if Path(model).is_dir():
        return read_layout(model)
    if not download:
        found = hub_file(model, LAYOUT_FILE, revision)
        return read_layout(found.parent) if found else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return read_layout(Path(hf_hub_download(model, LAYOUT_FILE, revision=revision)).parent)
    except (EntryNotFoundError, HFValidationError, OSError):
        return None  # loading the tokenizer says what is wrong with the name or the network


def digest(text: str) -> str:
    """Return the sha256 of a prompt's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
