"""What transformers and TRL leave to be said about resuming: later epochs, finished runs, and sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import RepeatSampler
from typing_extensions import override


class EpochSampler(Sampler[int]):
    """TRL's sampler with an order that depends on seed and epoch alone.

    TRL's draws each epoch's order from a generator that only counts on, so a run resumed in its second epoch
    would see the order of the first one again.
    """

    def __init__(self, sampler: RepeatSampler, epoch: Callable[[], int]) -> None:
        self._sampler = sampler
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        if self._sampler.shuffle:
            assert self._sampler.seed is not None, "TRL takes it from the arguments"
            self._sampler.generator.manual_seed(self._sampler.seed + self._epoch())
        return iter(self._sampler)


class CountOn(TrainerCallback):
    """Goes on from a checkpoint's sums of losses and tokens, which both trainers would begin at 0 again."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        last, loss = 0, 0.0
        for row in state.log_history:
            if "loss" in row:
                loss += row["loss"] * (row["step"] - last)
                last = row["step"]
            if "num_tokens" in row and hasattr(self._trainer, "_total_train_tokens"):
                self._trainer._total_train_tokens = row["num_tokens"]  # pyright: ignore[reportAttributeAccessIssue]
        self._trainer._total_loss_scalar = loss


def train(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train to the last step, from a checkpoint if one is given.

    transformers takes a further step when the checkpoint is that of the last one; here it is only loaded.
    """
    run_epoch = trainer._run_epoch

    def run_epoch_unless_done(**kwargs: Any) -> None:
        if trainer.state.global_step >= trainer.state.max_steps:
            trainer.control.should_training_stop = True
        else:
            run_epoch(**kwargs)

    trainer._run_epoch = run_epoch_unless_done  # pyright: ignore[reportAttributeAccessIssue]
    trainer.add_callback(CountOn(trainer))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
