"""The models of a run that tags and prompts belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rlt.config.checkpoints import named_checkpoint
from rlt.config.judges import reads_student_model
from rlt.config.schema import Config, stage_of
from rlt.data.model_layout import ModelLayout, find_layout, read_layout

TAGS, TEACHER, STUDENT = "layout.tags", "layout.teacher_prompt", "layout.student_prompt"
Read = Callable[[str, str | None], ModelLayout | None]
"""(folder or Hub name, revision) -> the record of a model, None where it has none."""


@dataclass(frozen=True)
class Owner:
    """A model of a run that tags and a prompt belong to."""

    setting: str
    """What names the model, e.g. `student_model`."""
    model: str
    """A folder, a Hub name, or the checkpoint that the run continues from."""
    role: str
    """What the run uses it as: teacher or student."""
    prompt_setting: str
    layout: ModelLayout | None
    is_checkpoint: bool = False
    """Then a difference is for rundir/origin.py to refuse, with what else must not change."""

    @property
    def prompt(self) -> str | None:
        """The prompt that it was trained with in this role, None where none is known."""
        if self.layout is None:
            return None
        if self.role == "teacher":
            return self.layout.teacher_prompt
        return self.layout.student_prompt if self.layout.role == "student" else None

    @property
    def name(self) -> str:
        """The model in the words of the configuration."""
        return self.model if self.is_checkpoint else f"{self.setting}={self.model}"


def owners_of(config: Config, read: Read = find_layout) -> Iterator[Owner]:
    """Yield the models of a run with their records, the one that it trains or asks first."""
    stage = stage_of(config)
    if stage.model and (model := config.model_name_or_path):
        role = stage.model
        if role == "either":
            role = "student" if config.infer.solution is None else "teacher"
        setting = TEACHER if role == "teacher" else STUDENT
        checkpoint = _goes_on_from(config)
        if checkpoint is not None:
            layout = read_layout(checkpoint)
            yield Owner("resume_from", str(checkpoint), role, setting, layout, is_checkpoint=True)
        else:
            layout = read(model, config.model.revision)
            yield Owner("model_name_or_path", model, role, setting, layout)
    if stage.is_judged and config.opd.teacher == "model" and (teacher := config.teacher_model):
        yield Owner("teacher_model", teacher, "teacher", TEACHER, read(teacher, None))
    counts = reads_student_model(config) and (config.stage != "select_traces" or config.select.max_length)
    counts = counts and config.stage != "student_rl"  # a copy reads the policy's text, in its layout
    if counts and config.student_model:
        layout = read(config.student_model, None)
        yield Owner("student_model", config.student_model, "student", STUDENT, layout)
    if stage.reads("reward.students"):
        for student in config.reward.students:
            place = f"reward.students.{student.name}"
            yield Owner(
                f"{place}.model", student.model, "student", f"{place}.prompt", read(student.model, None)
            )


def _goes_on_from(config: Config) -> Path | None:
    """Return the checkpoint of a training that continues; None where it starts from the model."""
    if not stage_of(config).trains:
        return None
    checkpoint = named_checkpoint(config.resume_from, Path(config.output_dir))
    return checkpoint if checkpoint is not None and checkpoint.is_dir() else None
