"""Evaluation while training: everything that is measured while a stage trains, in one section."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.data import SubsetSettings
from rlt.config.schema.evaluate import BENCHMARKS, LOCAL_TASK
from rlt.config.schema.setting import setting


@dataclass
class DuringTrainingSettings:
    """Benchmarks while a student trains (student_sft, student_rl, student_opd), asked and graded as in the
    stage evaluate. A few problems, greedily: a curve to watch, not a result to report."""

    steps: int = setting(
        0, "answer them every so many optimizer steps, and after the last one; 0 is off", ge=0
    )
    tasks: list[str] = setting(
        ["aime24", "math500", "gpqa_diamond"],
        f"any of {', '.join(BENCHMARKS)}, and {LOCAL_TASK}: those of evaluation.path",
    )
    num_problems: int | None = setting(64, "problems of each task, always the same; null: all", gt=0)
    num_samples: int = setting(1, "answers to each problem", gt=0)
    temperature: float = setting(0.0, "sampling temperature; 0 is greedy", ge=0, le=2)
    top_p: float = setting(1.0, "nucleus sampling; 1 is off", gt=0, le=1)
    max_tokens: int = setting(
        4096, "tokens of an answer, in student_rl never more than max_completion_length", gt=0
    )
    seed: int = setting(
        41,
        "decides the problems and the samples, so that runs with other seeds can be compared",
        ge=0,
        lt=2**32,
    )


@dataclass
class EvaluationSettings:
    """What is measured while a stage trains: loss (SFT) or reward (RL) on held-out problems, and benchmarks.

    How a benchmark is read, asked and graded is in `evaluate`, as for the stage of that name."""

    path: str | None = setting(None, "held-out problems: a local file or a Hub name; null: none")
    split: str = setting("test", "split of evaluation.path where it has several")
    subset: SubsetSettings = setting(SubsetSettings, "use a random part of the held-out problems only")
    steps: int = setting(0, "evaluate the held-out problems every so many optimizer steps; 0 is off", ge=0)
    at_start: bool = setting(True, "evaluate once before the first step, benchmarks too")
    num_generations: int = setting(4, "RL: explanations sampled per held-out problem", gt=0)
    per_device_batch_size: int = setting(8, "SFT: held-out rows of one forward pass", gt=0)
    benchmarks: DuringTrainingSettings = setting(DuringTrainingSettings, "benchmarks while a student trains")
