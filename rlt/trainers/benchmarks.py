"""When benchmarks are answered while a student trains, and how what comes of it is logged.

What is asked and how it is graded is passed in as a callable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class BenchmarkCallback(TrainerCallback):
    """Measures every so many steps and after the last one; `at_start` before the first one, too.

    `measure` takes the number of steps done and returns metrics. Every process calls it at the same time.
    """

    def __init__(
        self, trainer: Trainer, measure: Callable[[int], dict[str, float]], *, every: int, at_start: bool
    ) -> None:
        self._trainer = trainer
        self._measure = measure
        self._every = every
        self._at_start = at_start

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Measure the model that training starts from."""
        if self._at_start and state.global_step == 0:
            self._log(state, control)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Measure if it is time."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            self._log(state, control)

    def _log(self, state: TrainerState, control: TrainerControl) -> None:
        metrics = self._measure(state.global_step)
        should_log = control.should_log
        # TRL's own `log` would add the training metrics that have gathered since its last call.
        Trainer.log(self._trainer, metrics)
        control.should_log = should_log  # or this line would pass for that of the step, which is yet to come
