"""The students that judge: `student_model`, and those of `reward.students` with what they leave open."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace

from rlt.config.judges import own_student, pays_likelihood
from rlt.config.prompts import check_prompt
from rlt.config.schema import Config, StudentSettings, stage_of
from rlt.errors import ConfigError

FIRST = "student"
"""The name of student_model among several."""
_NAME = re.compile(r"[^\W\d][\w.-]*")


def frozen_students(config: Config) -> list[StudentSettings]:
    """Return the students whose weights a run holds beside those that it trains."""
    if not pays_likelihood(config):
        return []
    first, *others = all_students(config)
    return others if own_student(config) else [first, *others]


def all_students(config: Config) -> list[StudentSettings]:
    """Return every student with its own temperature and prompt, student_model first."""
    assert config.student_model is not None, "validate() has asked for a student"
    temperature, prompt = config.reward.student_temperature, config.layout.student_prompt
    model = config.model_name_or_path if own_student(config) else config.student_model
    assert model is not None, "validate() has asked for a model"
    first = StudentSettings(FIRST, model, 1.0, temperature, prompt)
    others = [
        replace(
            student,
            temperature=temperature if student.temperature is None else student.temperature,
            prompt=prompt if student.prompt is None else student.prompt,
        )
        for student in (config.reward.students if stage_of(config).reads("reward.students") else ())
    ]
    return [first, *others]


def check_students(config: Config) -> None:
    """Raise ConfigError for the first broken rule of `student_model` and `reward.students`."""
    _check_own_student(config)
    if not stage_of(config).reads("reward.students"):
        return
    students = config.reward.students
    if config.reward.combine == "min" and not students:
        raise ConfigError(
            "`reward.combine=min` needs several students: name the others in reward.students, or take mean."
        )
    if students and config.reward.placement == "server":
        raise ConfigError(
            "`reward.students` cannot use the servers of student_model: take another "
            "reward.placement with several students."
        )
    names = Counter([FIRST, *(student.name for student in students)])
    for student in students:
        if not _NAME.fullmatch(student.name) or names[student.name] > 1:
            raise ConfigError(
                f"`reward.students` must give each student its own name, other than {FIRST}, for its "
                f"metrics, got '{student.name}'."
            )
        if config.reward.combine == "min" and student.weight != 1:
            raise ConfigError(
                f"`reward.students` gives {student.name} the weight {student.weight:g}, which has no effect "
                "with reward.combine=min: remove it, or take reward.combine=mean."
            )
        if student.prompt is not None:
            check_prompt("student_prompt", student.prompt, f"reward.students.{student.name}.prompt")
        if not student.model:
            raise ConfigError(f"`reward.students` must give {student.name} a model: a folder or a Hub name.")
        for setting in ("weight", "temperature"):
            value = getattr(student, setting)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"`reward.students` must give {student.name} a {setting} above 0, got {value}."
                )


def _check_own_student(config: Config) -> None:
    """Refuse what the policy or its reference cannot do as a student."""
    own, reward = own_student(config), config.reward
    if own is None:
        return
    what = f"`student_model={own}`"
    refuse_own_student(config)
    if own == "reference" and config.trainer.beta == 0 and not config.model.lora.rank:
        raise ConfigError(
            f"{what} is the reference model of the KL term, and trainer.beta=0 loads none: give trainer.beta "
            "a value above 0, or take student_model=policy."
        )
    if reward.placement != "replicated":
        raise ConfigError(
            f"{what} is a model that the trainer holds already, so reward.placement={reward.placement} has "
            "nothing to place: take replicated, or give a student of its own (a folder or a Hub name)."
        )
    if not stage_of(config).scores:
        return  # nobody else judges, and nobody answers
    if reward.students:
        raise ConfigError(
            f"{what} judges alone, because reward.students would be frozen where it moves: leave "
            "reward.students empty, or give student_model a folder or a Hub name."
        )
    if reward.answers.weight:
        raise ConfigError(
            f"{what} answers nothing, because only a frozen student is whole in each process: set "
            "reward.answers.weight=0, or give student_model a folder or a Hub name."
        )


def refuse_own_student(config: Config) -> None:
    """Raise ConfigError for the policy or its reference as student where none is trained."""
    own = own_student(config)
    if own and not stage_of(config).is_rl:
        raise ConfigError(
            f"`student_model={own}` is a model of an RL training, and {config.stage} trains none: give a "
            f"folder or a Hub name (./{own} for a folder of this name)."
        )
