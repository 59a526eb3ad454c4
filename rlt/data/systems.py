"""Rows and the system prompts that students read: text alone, so that it is known without any model."""

from __future__ import annotations

from rlt.config.schema import Config, stage_of
from rlt.config.students import all_students
from rlt.data.kept import KeptRows
from rlt.data.prompts import FROM_DATASET
from rlt.formats.layout import system_of
from rlt.records import Problem


def require_systems(problems: KeptRows[Problem], config: Config) -> KeptRows[Problem]:
    """Return the problems that have the system prompt which a student of the stage reads from their row.

    The stage refuses the others, under data.on_bad_row, when it lays them out.
    """
    if not reads_systems(config):
        return problems

    def with_system(problem: Problem) -> Problem:
        system_of(problem, None)
        return problem

    return problems.lay_out(with_system, config.data)


def reads_systems(config: Config) -> bool:
    """Whether a student of the stage reads its system prompt from the rows."""
    stage = stage_of(config)
    if stage.scores:
        return any(student.prompt == FROM_DATASET for student in all_students(config))
    return stage.reads("layout.student_prompt") and config.layout.student_prompt == FROM_DATASET
