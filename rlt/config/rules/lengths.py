"""The rules of lengths: what must fit the context of the model and of the students."""

from __future__ import annotations

from collections.abc import Mapping

from rlt.config.files import context_length
from rlt.config.judges import pays_likelihood
from rlt.config.schema import Config, stage_of
from rlt.config.students import all_students
from rlt.errors import ConfigError


def check_lengths_here(config: Config) -> None:
    context = context_length(config.model_name_or_path) if config.model_name_or_path else None
    students = all_students(config) if pays_likelihood(config) else []
    check_lengths(config, context, {s.model: context_length(s.model) for s in students})


def check_lengths(config: Config, context: int | None, students: Mapping[str, int | None]) -> None:
    """Raise ConfigError for lengths that do not fit the contexts of the model and, by name, of the students.

    None is not known. The stages call it again once they know the contexts of models on the Hub.
    """
    stage = stage_of(config)
    if stage.only_scores:
        return  # traces that are too long are marked
    if stage.fills_context:
        need, what = config.max_prompt_length + 1, f"max_prompt_length + 1 = {config.max_prompt_length} + 1"
    elif stage.generates:
        prompt, completion = config.max_prompt_length, config.max_completion_length
        need = prompt + completion
        what = f"max_prompt_length + max_completion_length = {prompt} + {completion}"
        for student, room in students.items():
            _check_room_for_student(config, student, room)
    else:
        need, what = config.data.max_length, f"data.max_length = {config.data.max_length}"
    if context is not None and need > context:
        raise ConfigError(
            f"`{what}` must fit the context of {config.model_name_or_path}, whose max_position_embeddings is "
            f"{context}: lower it by {need - context}."
        )


def _check_room_for_student(config: Config, student: str, context: int | None) -> None:
    """Refuse explanations that alone would fill what the student reads: question, explanation, solution."""
    length = config.max_completion_length
    if context is not None and length >= context:
        raise ConfigError(
            f"`max_completion_length={length}` must leave room for question and solution in the context of "
            f"the student {student}, whose max_position_embeddings is {context}: take much "
            f"less than {context}."
        )
