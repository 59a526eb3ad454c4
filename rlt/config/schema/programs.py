"""Stages beside training: one question to a model, Countdown problems, a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlt.config.schema.setting import setting

OPERATIONS = ("+", "-", "*", "/")


@dataclass
class InferSettings:
    """One question to a student, or with its solution to a teacher."""

    question: str | None = setting(None, "the question")
    solution: str | None = setting(
        None, "its solution: then the model is a teacher, which explains it; null: it is a student"
    )


@dataclass
class CountdownSettings:
    """Which Countdown problems make_countdown makes."""

    num_train: int = setting(1000, "problems to train on", gt=0)
    num_test: int = setting(100, "problems held out: other numbers or another target", gt=0)
    seed: int = setting(0, "seed of the problems", ge=0, lt=2**32)
    min_numbers: int = setting(3, "fewest numbers of a problem", ge=2, le=6)
    max_numbers: int = setting(4, "most numbers of a problem", ge=2, le=6)
    max_number: int = setting(99, "numbers are drawn from 1 to this", gt=0, le=10**6)
    min_target: int = setting(1, "lowest target", ge=0)
    max_target: int = setting(100, "highest target", ge=0)
    operations: list[str] = setting(
        list(OPERATIONS), "what a reference solution may use; answers may use all four"
    )
    question: str | None = setting(
        None, "the question, with {numbers} and {target} where they go; null: one in words with an example"
    )


@dataclass
class PipelineSettings:
    """Stages one after the other, each reading what earlier ones wrote."""

    steps: dict[str, Any] = setting(
        {},
        "step -> its settings, e.g. student_sft: {dataset_id_or_path: '{collect_traces}/traces.jsonl'}; "
        "'{STEP}' is a step's run directory, run_cfg its run file (by default that of its name), gpus and "
        "strategy what the launcher gets (gpus: '4 4', strategy: offload)",
    )
    every: dict[str, Any] = setting({}, "settings of all steps that do not set them themselves")
    prefix: str | None = setting(
        None,
        "run files with this before their name are taken where there are some: quickstart_ is the toy world",
    )
    fork: bool = setting(
        False,
        "load the libraries once and fork for each step that is one process on a CPU without servers, which "
        "saves tiny models most of their time",
    )
    ignore_code: bool = setting(
        False, "keep finished steps although the code has changed since; else they run again"
    )
