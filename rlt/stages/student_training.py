"""The end of both stages that train a student on its own answers: student_rl and student_opd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlt.config.schema import Config
from rlt.stages.benchmarks import Benchmarks, watch_benchmarks
from rlt.stages.common import start_step
from rlt.stages.layouts import student_record
from rlt.stages.rl import train_and_save
from rlt.trainers.final_model import SavedWith, generation_config
from rlt.trainers.rl import RLTrainer


def train_student(
    trainer: RLTrainer[Any], config: Config, checkpoint: Path | None, benchmarks: Benchmarks | None
) -> None:
    """Train a student and write it. The model continues to end its turn with the token that it was taught."""
    stop_ids = list(dict.fromkeys([*trainer.eos_token_ids, *trainer.stop_token_ids]))
    generation = generation_config(trainer.layout.tokenizer, stop_ids, config.temperature)
    watch_benchmarks(trainer, benchmarks, trainer.answer, start_step(checkpoint))
    layout = student_record(config, trainer.layout, (row.problem for row in trainer.problems))
    train_and_save(trainer, config, checkpoint, SavedWith(generation, layout))
