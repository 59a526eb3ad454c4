"""The layouts of a run's models, built from the configuration, and the records that its own model gets."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlt.config.judges import reads_student_model
from rlt.config.schema import Config, StudentSettings, stage_of
from rlt.data.model_layout import ModelLayout, find_layout
from rlt.data.own_layout import prompt_of_rows
from rlt.data.owners import owners_of
from rlt.data.prompts import student_prompt, teacher_prompt
from rlt.errors import ConfigError
from rlt.formats.chat import Chat
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import tag_style
from rlt.formats.template import TemplateSettings
from rlt.formats.turn_end import END_OF_TEXT
from rlt.records import Problem

logger = logging.getLogger(__name__)


def teacher_layout(
    config: Config, tokenizer: PreTrainedTokenizerBase, model: str | None = None, revision: str | None = None
) -> TeacherLayout:
    """Return how the teacher of a run is asked: `model`, or without one the model of the run."""
    tags = tag_style(config.layout.tags)
    if model is None:
        model, revision = config.model_name_or_path, config.model.revision
    template = template_settings(config, model, revision)
    layout = TeacherLayout(
        *(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags), template),
        show_solution=config.layout.show_solution,
    )
    _check_switches(config, layout.chat)
    _tell_of_older_prompts(layout, model, revision)
    return layout


def _tell_of_older_prompts(layout: TeacherLayout, model: str | None, revision: str | None) -> None:
    """Warn of a teacher that was trained on other prompts: records of version 1 know no template's turns."""
    own, turn = find_layout(model, revision) if model else None, layout.chat.turn
    if own is None or own.role != "teacher" or own.chat_template_kwargs is not None:
        return
    if turn.plain[0] != turn.prompt:
        logger.warning(
            "%s was trained by an earlier version, whose prompts ended with %r; they end with %r now, as %s "
            "writes answers: train it again, or expect other explanations",
            *(model, turn.prompt, turn.plain[0], layout.chat.template.owner),
        )


def student_layout(  # noqa: PLR0913 - what differs between the stages, by keyword
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    model: str | None,
    *,
    prompt: str | None = None,
    revision: str | None = None,
    turn_end: str | None = None,
    solution_span: str = "content",
    asks_only: bool = False,
) -> StudentLayout:
    """Return how a student is asked: `model` under `prompt`, which is layout.student_prompt where None.

    `asks_only`: the student thinks for itself, and no explanation is its thought (see `StudentLayout`).
    """
    tags, setting = tag_style(config.layout.tags), config.layout.student_prompt if prompt is None else prompt
    rows = prompt_of_rows(config, model, setting, revision)
    layout = StudentLayout(
        tokenizer,
        tags,
        student_prompt(setting, tags),
        turn_end,
        prompt_of_rows=rows,
        solution_span=solution_span,
        template=template_settings(config, model, revision),
        asks_only=asks_only,
    )
    _check_switches(config, layout.chat)
    if layout.style.prompt_opens and not tags.is_native and not asks_only:
        logger.info(
            "%s opens the thought in its prompts (%s), so explanations continue it, and layout.tags=%s are "
            "around the solution alone; layout.tags=native is the model's own form",
            *(layout.chat.template.owner, layout.style.thought.open, tags.name),
        )
    return layout


def judge_layout(
    config: Config, tokenizer: PreTrainedTokenizerBase, student: StudentSettings
) -> StudentLayout:
    """Return how a frozen student reads explanations; `student` is of `all_students`."""
    assert student.prompt is not None, "all_students fills it in"
    return student_layout(
        *(config, tokenizer, student.model), prompt=student.prompt, solution_span=config.reward.solution_span
    )


def template_settings(config: Config, model: str | None, revision: str | None) -> TemplateSettings:
    """Return the switches and the date of a model's chat template: its own record's, or the run's.

    The models of a run may have been trained with different ones; a typed one that is not a model's own has
    been refused (own_layout.py).
    """
    settings = TemplateSettings(dict(config.layout.chat_template_kwargs), config.layout.date)
    own = find_layout(model, revision) if model and not config.layout.override else None
    if own is None:
        return settings
    switches = settings.switches if own.chat_template_kwargs is None else own.chat_template_kwargs
    return TemplateSettings(switches, own.date or settings.date)


def _check_switches(config: Config, chat: Chat) -> None:
    """Refuse a switch that the chat template of a run's only model does not read; of several, warn."""
    for name in config.layout.chat_template_kwargs:
        if chat.template.names(name):
            continue
        finding = f"{chat.template.owner} reads no {name}, which `layout.chat_template_kwargs` has"
        if not (reads_student_model(config) or stage_of(config).reads("teacher_model")):
            near = get_close_matches(
                name, set(re.findall(r"[a-z]\w+", chat.template.source)), n=1, cutoff=0.8
            )
            remedy = f"did you mean {near[0]}?" if near else "remove it."
            raise ConfigError(f"{finding}: {remedy}")
        logger.warning("%s, so it changes nothing there", finding)


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
        **_template_record(layout.chat),
    )


def student_record(config: Config, layout: StudentLayout, problems: Iterable[Problem]) -> ModelLayout:
    """Return what a student trained on `problems` is stored with."""
    text, is_of_rows, note = _student_prompt(layout, problems)
    token, name = _turn_end(config, layout.chat)
    if stage_of(config).reads("distill"):  # it is taught this one
        token, name = layout.turn_end, config.distill.turn_end
    return ModelLayout(
        *("student", layout.tags.name, None, text, is_of_rows, note),
        turn_end=token,
        turn_end_is=name,
        **_template_record(layout.chat),
    )


def template_facts(chat: Chat) -> dict[str, Any]:
    """Return, for manifests, what besides the messages a chat template has been given."""
    settings = chat.template.settings
    facts: dict[str, Any] = {"layout.date": settings.date} if chat.is_dated else {}
    return facts | ({"layout.chat_template_kwargs": dict(settings.switches)} if settings.switches else {})


def _template_record(chat: Chat) -> dict[str, Any]:
    """Return the switches and the date under which a template has written a model's chats."""
    settings = chat.template.settings
    return {
        "chat_template_kwargs": dict(settings.switches),
        "date": settings.date if chat.is_dated else None,
    }


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
