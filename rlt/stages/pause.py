"""Ending a run early in good order: a checkpoint after a whole step, and an exit code for queues."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from typing_extensions import override

from rlt.errors import Paused
from rlt.generation.collective import on_main_process
from rlt.rundir.stop_file import LAUNCHED_VARIABLE, asked_to_stop, forget_request
from rlt.surroundings.clock import running, since_boot


class PauseOnRequest(TrainerCallback):
    """Ends training after the step in which it is asked to, or before `max_hours` would be over.

    The hours count from the launcher's start. The longest step yet, with its evaluations and checkpoints, has
    to fit into what is left; if it does not, no further one is begun. All processes agree, once a step.
    """

    def __init__(self, accelerator: Accelerator, directory: Path, max_hours: float | None) -> None:
        self._accelerator = accelerator
        self._directory = directory
        began = float(os.environ.get(LAUNCHED_VARIABLE, since_boot()))
        self._max_hours = max_hours
        self._deadline = None if max_hours is None else began + 3600 * max_hours
        self._last = running()
        self._longest = 0.0
        self._reason: str | None = None
        self._state: TrainerState | None = None
        if accelerator.is_main_process and LAUNCHED_VARIABLE not in os.environ:
            forget_request(directory)  # a launcher has done so; what it was asked while servers loaded counts

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of the first step."""
        self._last = running()

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Have a checkpoint written and training ended, if it is time; the last step ends by itself."""
        if state.global_step >= state.max_steps:
            return
        self._reason = on_main_process(self._accelerator, self._why)
        if self._reason:
            self._state = state
            control.should_save = control.should_training_stop = True

    def _why(self) -> str | None:
        now = running()  # a step in which the job was suspended is no longer than others
        self._longest, self._last = max(self._longest, now - self._last), now
        if asked_to_stop(self._directory):
            return "as it was asked to"
        if self._deadline is not None and since_boot() + self._longest > self._deadline:
            return f"since trainer.max_hours={self._max_hours:g} would not hold another step"
        return None

    def leave(self) -> None:
        """Raise Paused if training was ended here."""
        if self._state is None:
            return
        if self._accelerator.is_main_process:
            forget_request(self._directory)
        step = self._state.global_step
        raise Paused(
            f"paused after step {step} of {self._state.max_steps}, {self._reason}; "
            f"{self._directory / f'{PREFIX_CHECKPOINT_DIR}-{step}'} is whole: the same command with "
            "resume_from=latest continues"
        )
