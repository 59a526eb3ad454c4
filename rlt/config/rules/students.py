"""The rules of frozen students: where they run, and the prompt that each was trained with."""

from __future__ import annotations

import os
from importlib.util import find_spec

from rlt.config.files import LAYOUT_FILE
from rlt.config.rules.servers import check_addresses
from rlt.config.schema import (
    DATASET_PROMPT,
    FILE_PROMPT,
    SKYTHOUGHT_PROMPT,
    Config,
    StudentSettings,
    stage_of,
)
from rlt.config.students import FIRST, all_students, check_students
from rlt.errors import ConfigError

PUBLISHED_STUDENTS = (
    "bespokelabs/Bespoke-Stratos-7B",
    "bespokelabs/Bespoke-Stratos-32B",
    "SakanaAI/RLT-7B",
    "SakanaAI/RLT-32B",
)
"""Students trained with a system prompt that is data and must not be reworded (method section 2)."""


def check_student(config: Config) -> None:
    check_students(config)
    if config.reward.placement == "zero3" and find_spec("deepspeed") is None:
        raise ConfigError(
            "`reward.placement=zero3` needs DeepSpeed, which is not installed: pip install 'rlt[deepspeed]', "
            "or take replicated or cpu_offload."
        )
    if config.reward.placement == "zero3" and config.reward.dtype != config.model.dtype:
        # DeepSpeed has one dtype for all that it shards, and would cast the student to it in silence.
        raise ConfigError(
            f"`reward.placement=zero3` shards the student in the dtype of the run, which is model.dtype="
            f"{config.model.dtype}, but reward.dtype is {config.reward.dtype}: set "
            f"reward.dtype={config.model.dtype}, or take replicated or cpu_offload."
        )
    _check_student_servers(config)
    for other in all_students(config):
        _check_student_prompt(other)


def _check_student_prompt(student: StudentSettings) -> None:
    name, prompt = student.model, student.prompt or ""
    if _needs_own_prompt(name, prompt):
        setting = (
            "layout.student_prompt" if student.name == FIRST else f"reward.students.{student.name}.prompt"
        )
        model = "student_model" if student.name == FIRST else "model"
        raise ConfigError(
            f"`{setting}` must be from_dataset or file:PATH with {model}={name}, "
            f"because under any prompt but its own every reward would be off, got '{prompt[:40]}' "
            "(from_dataset:NAME takes the one of another dataset)."
        )


def check_own_prompt(config: Config) -> None:
    """Refuse to train or to ask a published student under another prompt than its own."""
    stage = stage_of(config)
    if stage.model == "either" and config.infer.solution is not None:
        return  # a teacher
    model, prompt = config.model_name_or_path, config.layout.student_prompt
    if stage.reads("evaluate.tasks") and prompt.startswith(SKYTHOUGHT_PROMPT):
        return  # the protocol's own
    if model and _needs_own_prompt(model, prompt):
        values = "from_dataset or file:PATH" if stage.trains else "file:PATH"
        raise ConfigError(
            f"`layout.student_prompt` must be {values} with model_name_or_path={model}, because it was "
            f"trained with a prompt that is data, got '{prompt[:40]}' (from_dataset:NAME takes the one of "
            "another dataset)."
        )


def _needs_own_prompt(model: str, prompt: str) -> bool:
    """Whether a student is a published one, and the prompt words of someone else."""
    names = {name.rsplit("/", 1)[-1] for name in PUBLISHED_STUDENTS if name.startswith("bespokelabs")}
    is_published = model in PUBLISHED_STUDENTS or model.rstrip("/").rsplit("/", 1)[-1] in names
    if os.path.isfile(os.path.join(model, LAYOUT_FILE)):  # it says itself what it was trained with
        return False
    return is_published and prompt != "from_dataset" and not prompt.startswith((FILE_PROMPT, DATASET_PROMPT))


def _check_student_servers(config: Config) -> None:
    reward = config.reward
    check_addresses("reward.servers", reward.servers)
    if reward.placement == "server" and not reward.servers:
        raise ConfigError(
            "`reward.placement=server` needs running servers: start one with `python -m "
            f"rlt.launch.student_server {config.student_model} --temperature {reward.student_temperature:g} "
            "--port PORT` and give reward.servers=[http://127.0.0.1:PORT]."
        )
