"""The text around questions, solutions and explanations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlt.config.schema.setting import setting

FILE_PROMPT, ORIGINAL_PROMPT, DATASET_PROMPT = "file:", "original:", "from_dataset:"
"""What a prompt begins with that is read from a file, a checkout of the original release, or a dataset."""
SKYTHOUGHT_PROMPT, TEXT_PROMPT = "skythought:", "text:"
"""What it begins with where a checkout of SkyThought holds it, or where the text itself follows."""
TEMPLATE_DATE = "2025-01-01"
"""The date given to chat templates that write one, so that prompts are the same every day."""
PROMPT_KEYWORDS = {"teacher_prompt": ("default",), "student_prompt": ("default", "from_dataset")}
"""Settings of `layout` that hold a text, one of the forms of prompts.py, or one of these words."""


@dataclass
class LayoutSettings:
    """The text around questions, solutions and explanations (method section 2)."""

    tags: str = setting(
        "bespoke",
        "tags around a student's thought and solution: bespoke, r1, or native, which writes both as the "
        "student's own chat template does; a teacher's tags are the same with all of them",
        choices=("bespoke", "r1", "native"),
    )
    teacher_prompt: str = setting(
        "default",
        "the teacher's system prompt: default, original:DIR (the released one, out of a checkout of "
        "SakanaAI/RLT), file:PATH, text:TEXT, or the text itself",
    )
    student_prompt: str = setting(
        "default",
        "the student's system prompt: default, from_dataset (the row's system column, byte-exact), "
        "from_dataset:NAME (the one text in that column of another dataset), skythought:DIR (SkyThought's "
        "own, out of a checkout), file:PATH, text:TEXT, or the text itself",
    )
    chat_template_kwargs: dict[str, Any] = setting(
        {},
        "switches of chat templates, e.g. {enable_thinking: false}; they hold wherever a chat is written",
    )
    show_solution: bool = setting(
        True,
        "the teacher's prompt holds the solution; false leaves it out, a control: what is the solution worth "
        "to a teacher? A model does not carry it, so it is typed wherever such a teacher is used",
    )
    date: str = setting(
        TEMPLATE_DATE, "the day, as YYYY-MM-DD, that is given to chat templates that write the date"
    )
    override: bool = setting(
        False,
        "use the tags and prompts that are typed though a model was trained with others, as its "
        "rlt_layout.json says; tags and prompts that are not typed are the model's own all the same",
    )
