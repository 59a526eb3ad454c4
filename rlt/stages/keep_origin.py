"""Each checkpoint of a run tells what it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.config.checkpoints import PREFIX
from rlt.config.schema import Config
from rlt.reporting.origin import write_origin


class KeepOrigin(TrainerCallback):
    """Writes the origin into a checkpoint as soon as that is whole; on the main process."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @override
    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            write_origin(self._config, Path(self._config.output_dir) / f"{PREFIX}-{state.global_step}")
