"""The layouts of a run's models, built from the configuration, and the records that its own model gets."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from rlt.config.schema import Config, StudentSettings
from rlt.data.model_layout import ModelLayout
from rlt.data.own_layout import owners_of, prompt_of_rows
from rlt.data.prompts import student_prompt, teacher_prompt
from rlt.formats.layout import Chat, StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.formats.turn_end import END_OF_TEXT
from rlt.records import Problem

logger = logging.getLogger(__name__)


def teacher_layout(config: Config, tokenizer: PreTrainedTokenizerBase) -> TeacherLayout:
    """Return how the teacher of a run is asked."""
    tags = TAG_STYLES[config.layout.tags]
    return TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags))


def student_layout(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    model: str | None,
    *,
    prompt: str | None = None,
    revision: str | None = None,
    turn_end: str | None = None,
    solution_span: str = "content",
) -> StudentLayout:
    """Return how a student is asked: `model` under `prompt`, which is layout.student_prompt where None."""
    tags, setting = TAG_STYLES[config.layout.tags], config.layout.student_prompt if prompt is None else prompt
    rows = prompt_of_rows(config, model, setting, revision)
    return StudentLayout(
        tokenizer,
        tags,
        student_prompt(setting, tags),
        turn_end,
        prompt_of_rows=rows,
        solution_span=solution_span,
    )


def judge_layout(
    config: Config, tokenizer: PreTrainedTokenizerBase, student: StudentSettings
) -> StudentLayout:
    """Return how a frozen student reads explanations; `student` is of `all_students`."""
    assert student.prompt is not None, "all_students fills it in"
    return student_layout(
        *(config, tokenizer, student.model), prompt=student.prompt, solution_span=config.reward.solution_span
    )


def teacher_record(
    config: Config,
    layout: TeacherLayout,
    judge: StudentLayout | None = None,
    problems: Iterable[Problem] = (),
) -> ModelLayout:
    """Return what a trained teacher is stored with; `judge` is the student that paid it, for `problems`."""
    text, is_of_rows, note = _student_prompt(judge, problems) if judge else (None, False, None)
    token, name = _turn_end(config, layout.chat)
    return ModelLayout(
        *("teacher", layout.tags.name, layout.system_prompt, text, is_of_rows, note),
        turn_end=token,
        turn_end_is=name,
    )


def student_record(config: Config, layout: StudentLayout, problems: Iterable[Problem]) -> ModelLayout:
    """Return what a student trained on `problems` is stored with."""
    text, is_of_rows, note = _student_prompt(layout, problems)
    token, name = _turn_end(config, layout.chat)
    if config.stage == "student_sft":  # it is taught this one
        token, name = layout.turn_end, config.distill.turn_end
    return ModelLayout(
        *("student", layout.tags.name, None, text, is_of_rows, note), turn_end=token, turn_end_is=name
    )


def _student_prompt(
    layout: StudentLayout, problems: Iterable[Problem]
) -> tuple[str | None, bool, str | None]:
    """Return the one prompt of all rows, whether it is of the dataset, and why there is no such one."""
    if layout.system_prompt is not None:
        return layout.system_prompt, False, None
    texts = {problem.system or "" for problem in problems}
    if len(texts) == 1:
        return texts.pop(), True, None
    note = f"the rows that it was trained with have {len(texts)} different system prompts"
    logger.warning("no student's prompt is stored with the model, since %s", note)
    return None, True, note


def _turn_end(config: Config, chat: Chat) -> tuple[str, str]:
    """Return the token that ends the turn of a model that was not taught another one, and its name.

    That is what its own record says, or else the token that its tokenizer calls the end: `set_eos` has made
    it that of students from before the record.
    """
    if config.stage == "teacher_sft":
        return chat.end_of_turn, "end_of_turn"
    own = next(owners_of(config)).layout
    if own is not None and own.turn_end is not None and own.turn_end_is is not None:
        return own.turn_end, own.turn_end_is
    eos = chat.tokenizer.eos_token
    return (
        (str(eos), "end_of_text")
        if eos in END_OF_TEXT and eos != chat.end_of_turn
        else (
            chat.end_of_turn,
            "end_of_turn",
        )
    )
