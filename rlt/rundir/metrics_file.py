"""Writes metrics.jsonl (metrics.py) while a trainer logs. Apart, since reading it needs no library."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.rundir.metrics import NAME, metrics_row, prepare_metrics


class MetricsFile(TrainerCallback):
    """Appends each `on_log` dict to metrics.jsonl on the main process, flushed line by line.

    When training starts at step 0, an old file is set aside as metrics.jsonl.1; when it resumes, lines beyond
    the resumed step are cut, so no step is counted twice. `directory` defaults to the trainer's output_dir.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory else None
        self._path: Path | None = None
        self._started = 0.0

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the file ready before the first line. Evaluation before training has done so already."""
        if state.is_world_process_zero and self._path is None:
            self._open(args, state)

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line."""
        if not state.is_world_process_zero or not logs:
            return
        path = self._path or self._open(args, state)
        row = metrics_row(state.global_step, state.epoch, time.monotonic() - self._started, logs)
        with path.open("a", encoding="utf-8") as file:  # closing flushes: a crash loses no line
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def _open(self, args: TrainingArguments, state: TrainerState) -> Path:
        path = (self._directory or Path(args.output_dir or ".")) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        spent = prepare_metrics(path, state.global_step)
        self._started = time.monotonic() - spent
        self._path = path
        return path
