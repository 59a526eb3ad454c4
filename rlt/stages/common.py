"""What the training stages share: the start and the end of a run directory, and the resume point."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from rlt.config.save import save_config
from rlt.config.schema import Config
from rlt.errors import CheckpointError
from rlt.reporting.card import write_card
from rlt.reporting.metrics import MetricsFile
from rlt.reporting.progress import install_progress, setup_logging
from rlt.reporting.report import write_report
from rlt.reporting.run_record import RunRecord, Source

logger = logging.getLogger(__name__)


def is_main_process() -> bool:
    """Whether this process writes files; known before any process group exists."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def run_directory(config: Config, inputs: dict[str, Source | None]) -> Iterator[RunRecord]:
    """Open `output_dir` for a run: logging, config.yaml and run.json; report and card when it ends well."""
    is_main = is_main_process()
    setup_logging(int(os.environ.get("RANK", "0")))
    directory = Path(config.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    record = RunRecord.start(
        directory, stage=config.stage, seed=config.seed, inputs=inputs, is_main=is_main
    )
    with record:
        if is_main:
            save_config(config, directory / "config.yaml")
        yield record
    if is_main:
        write_card(directory)
        logger.info("report: %s", write_report(directory))


def resume_point(config: Config) -> Path | None:
    """Return the checkpoint folder to resume from, or None for a fresh start."""
    if config.resume_from is None:
        return None
    if config.resume_from != "latest":
        return Path(config.resume_from)
    found = get_last_checkpoint(config.output_dir) if Path(config.output_dir).is_dir() else None
    if found is None:
        raise CheckpointError(
            f"resume_from=latest finds no checkpoint in {config.output_dir}; leave it out to start anew"
        )
    return Path(found)


def training_context(config: Config) -> dict[str, Any]:
    """Return what the trainers' arguments depend on besides the configuration."""
    on_gpu = torch.cuda.is_available()
    return {
        "num_processes": int(os.environ.get("WORLD_SIZE", "1")),
        "bf16": config.model.dtype == "bfloat16",
        "use_cpu": not on_gpu,
    }


def observe(trainer: Trainer, config: Config) -> None:
    """Give a trainer our progress display and metrics.jsonl."""
    install_progress(trainer)
    trainer.add_callback(MetricsFile(config.output_dir))
