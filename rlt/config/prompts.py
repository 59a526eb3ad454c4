"""Where a system prompt comes from: the forms that layout.teacher_prompt and layout.student_prompt take.

A form is a prefix with a place behind it: `file:PATH`, `original:DIR`, `from_dataset:NAME`, `skythought:DIR`;
behind `text:` is the text itself, also one that looks like a form or a keyword. Anything else is a keyword
(schema.PROMPT_KEYWORDS), or the prompt's own text. rlt/data/prompts.py reads what is there.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches

from rlt.config.files import looks_local
from rlt.config.original.prompt import prompt_file, read_teacher_prompt
from rlt.config.original.skythought import read_skythought_prompt, skythought_file
from rlt.config.schema import (
    DATASET_PROMPT,
    FILE_PROMPT,
    ORIGINAL_PROMPT,
    PROMPT_KEYWORDS,
    SKYTHOUGHT_PROMPT,
    TEXT_PROMPT,
)
from rlt.errors import ConfigError

FORMS = {
    "teacher_prompt": (FILE_PROMPT, ORIGINAL_PROMPT),
    "student_prompt": (FILE_PROMPT, DATASET_PROMPT, SKYTHOUGHT_PROMPT),
}
"""By setting of `layout`, the forms that it may have."""
_ALL = (FILE_PROMPT, ORIGINAL_PROMPT, DATASET_PROMPT, SKYTHOUGHT_PROMPT)
_MEANT_AS_FORM = re.compile(r"(file|original|from[\s_-]?dataset)\s*[:=]\s*", re.IGNORECASE)


def place_of(prompt: str, form: str) -> str | None:
    """Return what follows a form's prefix, None for a prompt of another form."""
    return prompt.removeprefix(form) if prompt.startswith(form) else None


def source_file(prompt: str) -> str | None:
    """Return the file or the dataset that a prompt is read from; None for a keyword or a text."""
    if (folder := place_of(prompt, ORIGINAL_PROMPT)) is not None:
        return str(prompt_file(folder))
    if (folder := place_of(prompt, SKYTHOUGHT_PROMPT)) is not None:
        return str(skythought_file(folder) or folder)
    return place_of(prompt, FILE_PROMPT) or place_of(prompt, DATASET_PROMPT)


def with_home(prompt: str) -> str:
    """Return a prompt whose place has `~` spelled out."""
    for form in _ALL:
        if (place := place_of(prompt, form)) is not None:
            return f"{form}{os.path.expanduser(place)}"
    return prompt


def check_prompt(name: str, prompt: str, setting: str | None = None) -> None:
    """Raise ConfigError for a prompt whose place does not serve, or a word that would be taken for a text.

    `name` is teacher_prompt or student_prompt; `setting` its full name, if not in `layout`.
    """
    setting, keywords, forms = setting or f"layout.{name}", PROMPT_KEYWORDS[name], FORMS[name]
    if prompt in keywords or prompt.startswith(TEXT_PROMPT):
        return
    if any(prompt.startswith(form) for form in forms):
        _check_place(setting, prompt)
        return
    _refuse_other_forms(name, prompt, setting)
    if os.path.isfile(os.path.expanduser(prompt)):
        raise ConfigError(
            f"`{setting}={prompt}` would be the prompt's text: write file:{prompt} to read the file."
        )
    word = re.sub(r"[\s-]+", "_", prompt.strip()).casefold()
    if near := get_close_matches(word, keywords, n=1, cutoff=0.75):
        raise ConfigError(
            f"`{setting}={prompt}` would be the prompt's text: write {near[0]} if you mean that, or put the "
            "text into a file and give file:PATH."
        )


def _check_place(setting: str, prompt: str) -> None:
    """Refuse a file, a checkout or a dataset that is not there; a possible Hub name is left alone."""
    if (folder := place_of(prompt, ORIGINAL_PROMPT)) is not None:
        read_teacher_prompt(folder)
    elif (folder := place_of(prompt, SKYTHOUGHT_PROMPT)) is not None:
        read_skythought_prompt(folder)
    elif (path := place_of(prompt, FILE_PROMPT)) is not None:
        if not os.path.isfile(path):
            raise ConfigError(f"`{setting}={prompt}` names a file that does not exist.")
    elif not (name := prompt.removeprefix(DATASET_PROMPT).strip()):
        raise ConfigError(
            f"`{setting}={prompt}` names no dataset: write from_dataset:NAME, as in "
            "from_dataset:bespokelabs/Bespoke-Stratos-17k, or from_dataset for the rows' own."
        )
    elif looks_local(name) and not os.path.exists(name):
        raise ConfigError(
            f"`{setting}={prompt}` names a dataset that does not exist: give a file, a folder or a Hub name."
        )


def _refuse_other_forms(name: str, prompt: str, setting: str) -> None:
    """Refuse a form that is misspelt, belongs to the other prompt, or lacks its place."""
    if prompt.strip().casefold() in ("original", "released"):
        instead = "original:DIR" if name == "teacher_prompt" else "from_dataset, or from_dataset:NAME"
        raise ConfigError(
            f"`{setting}={prompt}` would be the prompt's text: write {instead} for that of the original "
            "release."
        )
    meant = _MEANT_AS_FORM.match(prompt)
    if meant is None:
        return
    rest = prompt[meant.end() :]
    form = re.sub(r"[\s-]", "_", meant[1].casefold()).replace("fromdataset", "from_dataset") + ":"
    if form != FILE_PROMPT and re.search(r"\s", rest):
        return  # a sentence
    if form in FORMS[name]:
        read = "the file" if form == FILE_PROMPT else "the prompt from there"
        raise ConfigError(
            f"`{setting}={prompt}` would be the prompt's text: write {form}{rest} to read {read}."
        )
    if form == DATASET_PROMPT:
        raise ConfigError(
            f"`{setting}={prompt}` is not possible, because a dataset's system column is the student's: take "
            "default, file:PATH, original:DIR, or the text itself."
        )
    raise ConfigError(
        f"`{setting}={prompt}` is not possible, because a checkout's prompt is the teacher's: "
        "take from_dataset, or from_dataset:NAME for the one text that another dataset carries."
    )
