"""The phases of a run on their way into now.json."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.rundir.now import Now

UPDATING = "updating"


class Phases(TrainerCallback):
    """Records a training's updates, evaluations and saves by itself; phases inside a step call `enter`."""

    def __init__(self, now: Now | None) -> None:
        """`now` is None on processes that write nothing."""
        self._now = now
        self._state: TrainerState | None = None

    def enter(self, phase: str) -> None:
        """Record what begins now."""
        if self._now is None:
            return
        if self._state is None:
            self._now.enter(phase)
        else:
            last = self._state.max_steps
            self._now.enter(phase, min(self._state.global_step + 1, last), last)

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._state = state
        self.enter("evaluating" if control.should_evaluate else UPDATING)

    @override
    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._state = state
        self.enter(UPDATING)

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_evaluate:
            self.enter("evaluating")
        elif control.should_save:
            self.enter("saving")

    @override
    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.enter("saving" if control.should_save else UPDATING)

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.enter("saving")
