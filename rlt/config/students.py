"""The students that judge: `student_model`, and those of `reward.students` with what they leave open."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace

from rlt.config.prompts import check_prompt
from rlt.config.schema import Config, StudentSettings
from rlt.errors import ConfigError

FIRST = "student"
"""The name of student_model among several."""
_NAME = re.compile(r"[^\W\d][\w.-]*")


def all_students(config: Config) -> list[StudentSettings]:
    """Return every student with its own temperature and prompt, student_model first."""
    assert config.student_model is not None, "validate() has asked for a student"
    temperature, prompt = config.reward.student_temperature, config.layout.student_prompt
    first = StudentSettings(FIRST, config.student_model, 1.0, temperature, prompt)
    others = [
        replace(
            student,
            temperature=temperature if student.temperature is None else student.temperature,
            prompt=prompt if student.prompt is None else student.prompt,
        )
        for student in config.reward.students
    ]
    return [first, *others]


def check_students(config: Config) -> None:
    """Raise ConfigError for the first broken rule of `reward.students`."""
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
