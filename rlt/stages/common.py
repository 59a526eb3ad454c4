"""What the training stages share: the start and the end of a run directory, and the resume point."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers.trainer import TRAINER_STATE_NAME

from rlt.config.changes import changed_settings
from rlt.config.checkpoints import checkpoints, is_whole, last_whole
from rlt.config.resolve import prompt_files
from rlt.config.save import load_config, save_config
from rlt.config.schema import Config, stage_of
from rlt.data.kept import KeptRows, Overlap
from rlt.data.model_layout import ModelLayout, write_layout
from rlt.data.own_layout import used_prompts
from rlt.devices import on_gpu
from rlt.errors import CheckpointError, ConfigError, RLTError
from rlt.evaluation.intervals import paired_interval
from rlt.io import set_aside, write_text
from rlt.models.process_groups import limit_new_groups
from rlt.reporting.card import write_card
from rlt.reporting.dataset_card import OVERLAP_FILE
from rlt.reporting.progress import install_progress, setup_logging
from rlt.reporting.report import write_report
from rlt.reporting.trackers import resolve_report_to
from rlt.rundir.metrics_file import MetricsFile
from rlt.rundir.now import LOADING, Now
from rlt.rundir.origin import DATASET, ROW_ORDER, require_same_origin, row_order, write_origin
from rlt.rundir.phases import Phases
from rlt.rundir.run_record import RunRecord, Source, only_run_in
from rlt.rundir.timeline import TimelineFile
from rlt.stages.attention import policy_attention, settle_attention
from rlt.stages.heads import check_heads
from rlt.stages.pause import PauseOnRequest
from rlt.surroundings.process_name import name_process
from rlt.trainers.arguments import RunContext, group_limit
from rlt.trainers.meter import MeteredTraining
from rlt.trainers.order import Places, all_of

logger = logging.getLogger(__name__)
T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this process writes files; known before any process group exists."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def run_directory(
    config: Config,
    inputs: dict[str, Source | None],
    card: Callable[[Path], object] | None = write_card,
    report: Callable[[Path], Path | None] | None = None,
) -> Iterator[RunRecord]:
    """Open `output_dir` for a run: logging, config.yaml, run.json; a report at the end, a card on success.

    An attention that a model cannot be loaded with ends the run here.
    `report` returns the file that it has written, None where there is nothing to show; its default is that
    of a training run.
    """
    is_main = is_main_process()
    rank = int(os.environ.get("RANK", "0"))
    setup_logging(rank)
    limit_new_groups(group_limit(config))
    name_process(f"rlt:train {rank}" if stage_of(config).trains else f"rlt:{config.stage}")
    directory = Path(config.output_dir)
    with only_run_in(directory) if is_main else nullcontext():
        if is_main and stage_of(config).trains:  # before anything of the run is written
            require_same_origin(config)
        read = {**inputs, **prompt_files(config)}
        seed = config.seed if stage_of(config).reads("seed") else None
        record = RunRecord.start(directory, stage=config.stage, seed=seed, inputs=read, is_main=is_main)
        now = Now(directory)
        if is_main:
            if stage_of(config).trains and config.resume_from:
                tell_changes(config, directory / "config.yaml")
            save_config(config, directory / "config.yaml")
            now.clear()  # of an earlier run
            if stage_of(config).trains:
                now.enter(LOADING)
        try:
            with record, full_disk_in_one_sentence():
                if is_main:
                    record.update(prompts=used_prompts(config))
                settle_attention(config)
                check_heads(config)
                yield record
                if is_main and (spent := Now(directory).spent()):  # of a stage that enters phases
                    record.update(seconds_by_phase=spent)
            if is_main and card:
                card(directory)
            if is_main:
                now.clear()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        finally:
            if is_main:  # a report of a failed run shows how far it came
                _report(directory, report or _training_report)


def tell_changes(config: Config, saved: Path) -> None:
    """Warn of settings with which a run does not continue as it began."""
    try:
        changed = changed_settings(load_config(saved), config)
    except ConfigError as error:
        changed = [str(error)]
    if changed:
        logger.warning("the run continues with other settings than it had before: %s", "; ".join(changed))


@contextmanager
def full_disk_in_one_sentence() -> Iterator[None]:
    """Convert any disk-full error into a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        what = _not_written(error)
        if what is None:
            raise
        raise CheckpointError(
            f"{what} cannot be written (No space left on device); make room there and continue: what was "
            "complete is kept"
        ) from error


def _not_written(error: Exception) -> str | None:
    """Return what a full disk has not taken, or None where the disk is not the reason."""
    if isinstance(error, OSError):
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return str(error.filename or "a file") if is_full else None
    if isinstance(error, SafetensorError):
        return "a model's weights" if f"os error {errno.ENOSPC}" in str(error) else None
    # torch.save reports only that less was written than it gave
    return "a checkpoint's file" if "inline_container.cc" in str(error) else None


def _report(directory: Path, write: Callable[[Path], Path | None]) -> None:
    try:
        if path := write(directory):
            logger.info("report: %s", path)
    except (OSError, RLTError) as error:  # a full disk, say, must not hide why the run failed
        logger.warning("no report: %s", error)


def _training_report(directory: Path) -> Path | None:
    """Return the report of a training run; None where it ended before it had anything to show."""
    return write_report(directory, paired_interval) if (directory / "metrics.jsonl").is_file() else None


def resume_point(config: Config) -> Path | None:
    """Return the checkpoint folder to resume from, or None for a fresh start.

    `latest` is the newest whole one: an interrupted save leaves a folder without its last file.
    """
    if config.resume_from is None:
        return None
    if config.resume_from == "latest":
        found = last_whole(Path(config.output_dir))
        if found is None:
            raise CheckpointError(
                f"resume_from=latest finds no whole checkpoint in {config.output_dir}; remove it to "
                "start from the beginning"
            )
        return found
    checkpoint = Path(config.resume_from)
    if not is_whole(checkpoint):
        raise CheckpointError(
            f"{checkpoint} is no whole checkpoint: its last file, {TRAINER_STATE_NAME}, is missing; take "
            "another"
        )
    return checkpoint


def places_of(rows: KeptRows[Any], checkpoint: Path | None, record: RunRecord) -> Places:
    """Return where the rows to train on are in their dataset, which decides their order.

    A run continues in the order that it began with: one from before this was done shuffles the rows that are
    left.
    """
    order = row_order(checkpoint)
    record.update(**{ROW_ORDER: order})
    return Places(rows.positions, rows.total) if order == DATASET else all_of(len(rows.items))


def start_step(checkpoint: Path | None) -> int:
    """Return the steps that a checkpoint has behind it, 0 for none."""
    if checkpoint is None:
        return 0
    return int(json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["global_step"])


def tidy_checkpoints(directory: Path, step: int) -> None:
    """Rename what an earlier run in the same directory saved after `step`: it belongs to another history.

    What it was writing when it ended is no checkpoint, and only takes room.
    """
    for later, folder in checkpoints(directory):
        if not is_whole(folder):
            logger.warning("%s is removed: an earlier run ended before it was whole", folder)
            shutil.rmtree(folder)
        elif later > step and (place := set_aside(folder)):
            logger.warning("an earlier run's %s is kept as %s", folder, place.name)


def run_context(config: Config) -> RunContext:
    """Return what the trainers' arguments depend on besides the configuration."""
    trackers = resolve_report_to(
        config.report_to, config.wandb_project, config.output_dir, is_main=is_main_process()
    )
    return RunContext(
        num_processes=int(os.environ.get("WORLD_SIZE", "1")),
        use_cpu=not on_gpu(),
        deepspeed=os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true",
        report_to=tuple(trackers),
        attention=policy_attention(config),
    )


def write_skipped(config: Config, *tables: KeptRows[Any] | None) -> int:
    """Return how many rows were skipped; skipped_rows.jsonl in the run directory says which, and why."""
    skipped = [bad for table in tables if table for bad in sorted(table.skipped, key=lambda bad: bad.row)]
    if is_main_process():
        path = Path(config.output_dir) / "skipped_rows.jsonl"
        path.unlink(missing_ok=True)
        if skipped:
            write_text(path, "".join(json.dumps(asdict(b), ensure_ascii=False) + "\n" for b in skipped))
            logger.warning("%d rows are skipped: see %s", len(skipped), path)
        write_overlaps(Path(config.output_dir), [o for table in tables if table for o in table.overlaps])
    return len(skipped)


def write_overlaps(directory: Path, overlaps: Sequence[Overlap]) -> None:
    """Write overlap.jsonl: the rows that share text with a benchmark or repeat another."""
    path = directory / OVERLAP_FILE
    path.unlink(missing_ok=True)
    if overlaps:
        write_text(path, "".join(json.dumps(asdict(o), ensure_ascii=False) + "\n" for o in overlaps))


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Return the items with a bar on the main process's terminal."""
    return tqdm(items, desc=what, disable=None if is_main_process() else True, leave=False)


def phases_of(config: Config, first: str = LOADING) -> Phases:
    """Return what takes the phases of a run: status shows them, and run.json says how long each took."""
    phases = Phases(Now(config.output_dir) if is_main_process() else None)
    phases.enter(first)
    return phases


class Observers(NamedTuple):
    """What a training stage has to call by itself."""

    phases: Phases
    """Takes what the run is doing now."""
    pause: PauseOnRequest
    """Ends the stage after a training that was ended early."""


def observe(trainer: MeteredTraining, config: Config, layout: ModelLayout) -> Observers:
    """Give a trainer our progress display, our files of what it does, and the way to end early.

    Each checkpoint gets what it comes from, and the layout that its model is trained with.
    """
    install_progress(trainer)
    trainer.add_callback(MetricsFile(config.output_dir))
    timeline = TimelineFile(config.output_dir)
    trainer.add_callback(timeline)
    trainer.meter.write = timeline.write
    trainer.keep_beside = partial(_keep_beside, config, layout)
    phases = phases_of(config)
    trainer.add_callback(phases)
    pause = PauseOnRequest(trainer.accelerator, Path(config.output_dir), config.trainer.max_hours)
    trainer.add_callback(pause)
    return Observers(phases, pause)


def _keep_beside(config: Config, layout: ModelLayout, checkpoint: Path) -> None:
    write_origin(config, checkpoint)
    write_layout(checkpoint, layout)
