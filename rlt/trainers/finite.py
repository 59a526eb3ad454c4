"""A training ends at the step in which a number is none: a loss, a gradient norm, a weight, an evaluation.

transformers would continue. It logs the mean of earlier losses in place of one that is not finite
(`logging_nan_inf_filter`; at the first step that is 0), lets the optimizer step on such gradients, and saves
what comes of it. DeepSpeed leaves such steps out one by one, with a gradient norm of -1 or infinity. Here
every process ends together, before anything of the step is written; metrics.jsonl gets its line, in which
such a number is null.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.config.checkpoints import last_whole
from rlt.errors import NotFinite
from rlt.generation.collective import on_main_process
from rlt.models.gather import max_over_processes
from rlt.trainers.beside import KeepsBeside

Logs = dict[str, float]
_WATCHED = ("_loss", "_reward")
"""What the names of evaluation metrics end with that have to be finite."""


class FiniteTraining(KeepsBeside):
    """A mixin in front of a trainer of TRL that checks the numbers of each optimizer step.

    `_get_grad_norm` is overridden because it is called once a step on every process, after the last backward
    pass and before the optimizer; the callbacks at that place are not given the norm.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._losses: list[Tensor] = []
        self._step_logs: Logs = {}
        self.add_callback(_Watch(self))

    # transformers' replaces a loss that is no number by the mean before it is logged; ours sees each one
    # first.
    @override
    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self._losses.append(loss.detach().float().mean())
        return loss

    @override
    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._check_step(norm)
        return norm

    def end_training(self, step: int, what: str, logs: Logs, *, change: str | None = None) -> NoReturn:
        """Write the step's line of metrics and raise NotFinite; collective, with the same words.

        `change` is with what to start again; None: with smaller updates.
        """
        self.state.global_step = step
        if logs:
            self.log({**logs})
        broken = self.broken_weights()
        found = f" (weights that are not finite: {broken})" if broken else ""
        on = self.where_to_go_on(step, broken, change)
        raise NotFinite(f"training ends at step {step}, because {what}{found}; {on}")

    def broken_weights(self) -> str | None:
        """Return which weights of the policy are not finite, None where all are; collective."""
        assert self.model is not None, "the constructor has made it"
        names = not_finite(self.model)
        if not max_over_processes(self.accelerator, len(names)):
            return None
        found = sorted(set(gather_object(names)))
        return found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"

    def where_to_go_on(self, step: int, broken: str | None, change: str | None = None) -> str:
        """Return the last whole checkpoint, and with what to continue; collective."""
        assert self.args.output_dir is not None
        directory = Path(self.args.output_dir)
        kept = on_main_process(self.accelerator, lambda: last_whole(directory))
        if change is None or broken:
            change = "a lower learning_rate"
            if self.args.max_grad_norm == 0:
                change += " or trainer.max_grad_norm=1"
        if kept is not None:
            return f"{kept} is the last whole checkpoint: resume_from=latest continues there, with {change}"
        if broken and step <= 1:
            return f"there is no checkpoint: take a model whose weights are all numbers, or {change}"
        return f"there is no whole checkpoint yet: start again with {change}"

    def check_weights(self) -> None:
        """End the training where a weight is not finite; collective."""
        if self.broken_weights():
            self.end_training(self.state.global_step, "weights are not finite", self._step_logs)

    def check_evaluation(self, metrics: Logs) -> None:
        """End the training where the loss or the reward of an evaluation is not finite; collective."""
        bad = [n for n, value in metrics.items() if n.endswith(_WATCHED) and not math.isfinite(value)]
        if max_over_processes(self.accelerator, len(bad)):
            what = f"{' and '.join(sorted(bad)) or 'a metric'} of the held-out rows is not finite"
            self.end_training(self.state.global_step, what, {})

    def _check_step(self, norm: Any) -> None:
        """End the training where the step's loss or gradient norm is not finite; collective.

        A norm is None where DeepSpeed computes none, and below 0 where that found no finite one. In float16
        one that is not finite is how the loss scale is found.
        """
        value = 0.0 if norm is None or self.args.fp16 else float(norm)
        value = value if 0 <= value < math.inf else math.nan
        device = self.accelerator.device
        loss = torch.stack(self._losses).sum().to(device) if self._losses else torch.zeros((), device=device)
        self._losses = []
        mine = torch.stack([loss, torch.tensor(value, device=device)]).unsqueeze(0)
        found: Any = self.accelerator.gather(mine)  # (processes, 2)
        loss_mean, norm_mean = found.mean(dim=0).tolist()
        self._step_logs = {"loss": loss_mean, "learning_rate": self._get_learning_rate()}
        if norm is not None:
            self._step_logs["grad_norm"] = norm_mean
        bad = [n for n, v in (("loss", loss_mean), ("gradient norm", norm_mean)) if not math.isfinite(v)]
        if bad:
            what = f"its {' and its '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite"
            self.end_training(self.state.global_step + 1, what, self._step_logs)


class _Watch(TrainerCallback):
    """Calls the trainer's checks where only callbacks are called."""

    def __init__(self, trainer: FiniteTraining) -> None:
        self._trainer = trainer

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the weights that the optimizer has written, before they are saved."""
        self._trainer.check_weights()

    @override
    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Logs | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at an evaluation, before the checkpoint of its step is saved."""
        self._trainer.check_evaluation(metrics or {})


@torch.no_grad()
def not_finite(model: nn.Module) -> list[str]:
    """Return the names of the weights that are not finite in what this process holds of them."""
    named = [(n, _held_here(p)) for n, p in model.named_parameters() if p.is_floating_point()]
    named = [(n, held) for n, held in named if held.numel()]
    if not named:
        return []
    # The extremes pass a NaN on, and take no memory as large as the weights.
    device = named[0][1].device
    extremes_N2 = torch.stack([torch.stack(h.aminmax()).float().to(device) for _, h in named])
    is_bad_N = (~extremes_N2.isfinite()).any(dim=1).tolist()
    return [name for (name, _), is_bad in zip(named, is_bad_N, strict=True) if is_bad]


def _held_here(parameter: Any) -> Tensor:
    """Return a parameter, or this process's part of one that ZeRO-3 has partitioned, without its padding."""
    shard = getattr(parameter, "ds_tensor", None)
    if shard is None:
        return parameter.detach()
    size = shard.ds_numel
    here = min(max(parameter.ds_numel - size * parameter.ds_zero_partition_rank, 0), size, shard.numel())
    return shard.detach().view(-1)[:here]
