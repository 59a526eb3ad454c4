"""What transformers and TRL do not handle when a run resumes: ended runs, sums, settings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.rundir.metrics import GENERATED

logger = logging.getLogger(__name__)


class CountOn(TrainerCallback):
    """Continues from a checkpoint's sums of losses and tokens, which the trainers would begin at 0 again."""

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
            if GENERATED in row and hasattr(self._trainer, "generated_tokens"):
                self._trainer.generated_tokens = row[GENERATED]  # pyright: ignore[reportAttributeAccessIssue]
        self._trainer._total_loss_scalar = loss


class SettingsOfNow(TrainerCallback):
    """Continues with the optimizer's settings of this run, not with those that the checkpoint holds.

    Loading a checkpoint puts its learning rate, base rate, weight decay, betas and epsilon back, so that what
    was typed would be accepted and lost, and further epochs would begin at the 0 where a schedule had ended.
    Where nothing was changed, nothing changes here.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        optimizer: Any = self._trainer.optimizer
        _, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        kept = {name: value for name, value in settings.items() if name in ("betas", "eps")}
        # transformers makes two groups: what decays, and biases and norms, which do not.
        for group, decay in zip(optimizer.param_groups, (args.weight_decay, 0.0), strict=False):
            group.update(kept, weight_decay=decay)
        schedule: Any = self._trainer.lr_scheduler
        schedule = getattr(schedule, "scheduler", schedule)  # under accelerate's wrapper
        if not isinstance(schedule, LambdaLR):
            return
        before = schedule.get_last_lr()[0]
        schedule.base_lrs = [args.learning_rate] * len(schedule.base_lrs)
        rates: list[float | Tensor] = [
            args.learning_rate * shape(schedule.last_epoch) for shape in schedule.lr_lambdas
        ]
        schedule._last_lr = rates
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group.update(lr=rate, initial_lr=args.learning_rate)
        if rates[0] != before and state.is_world_process_zero:
            logger.info(
                "the learning rate continues at %.4g, as the schedule over %d steps has it after step %d; "
                "the checkpoint holds %.4g",
                *(rates[0], state.max_steps, state.global_step, before),
            )


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
    if checkpoint:
        trainer.add_callback(SettingsOfNow(trainer))
        if trainer.args.device.type == "cpu":
            # transformers would load the optimizer onto its device. accelerate calls that cpu:0 in several
            # processes without DeepSpeed, a place that torch.load does not know. `device` returns this.
            trainer.args._setup_devices = torch.device("cpu")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
