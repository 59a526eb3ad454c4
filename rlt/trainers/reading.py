"""What a step needs to know of its rows without gradients: computed once for each row, when the row is there.

TRL's trainer waits for all completions. Then it runs the policy (for its importance-sampling correction), the
reference and the reward over all of them, one after the other. Here the engine hands over rows as they are
done, each is read by all models, and TRL is given the values when it asks.

What is overridden of TRL's trainer:
- `_get_per_token_logps_and_entropies` without gradients, which would run the model: it looks the values up.
- the importance-sampling correction, where nothing else reads the policy's log-probabilities: it would take a
  forward pass of its own; its ratio is made in the pass with gradients (importance.py).

B rows, C tokens of completions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from trl.trainer.utils import use_adapter

from rlt.models.logprobs import Request
from rlt.records import Completion
from rlt.trainers.early import Unit
from rlt.trainers.importance import Correction, RatioLog
from rlt.trainers.meter import Meter
from rlt.trainers.narrow import NarrowPasses, evaluation_mode
from rlt.trainers.prompted import PromptedProblem


@dataclass(frozen=True)
class RowValues:
    """What is known of one row before the update; (C,) each, None where nobody asks."""

    policy: Tensor | None
    reference: Tensor | None
    measured: Any
    """What its score is made from."""


class ReadOnce(NarrowPasses):
    """GRPO that reads each row once; a subclass says what a score is made from."""

    reads_policy: bool
    """Whether `measure` is given the policy's log-probabilities of the completion."""
    meter: Meter
    rows_together: int | None
    """Rows of a unit at most (early.py); None: all rows of a step are one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """The arguments are those of GRPOTrainer."""
        super().__init__(*args, **kwargs)
        self._values: dict[int, RowValues] = {}
        self._asked_for: list[str] = []
        self._loss_inputs: dict[str, Any] = {}
        self._ratios = RatioLog()
        self._correction = Correction(
            self.vllm_importance_sampling_mode,
            self.vllm_importance_sampling_clip_min,
            self.vllm_importance_sampling_clip_max,
        )

    @abstractmethod
    def measure(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        policy_logprobs: Sequence[Tensor | None],
        *,
        runs: Sequence[int] | None,
    ) -> list[Any]:
        """Return what each completion's score is made from; every process calls it, with as many rows.

        `runs`: numbers of consecutive rows of which none may depend on those of another run; None: all may.
        """

    def while_reading(self) -> AbstractContextManager[None]:
        """Return a context in which the rows of a step are read."""
        return nullcontext()

    @property
    def _step_is_one_update(self) -> bool:
        """Whether the policy that has generated is the one of the update, in all of its passes."""
        args: Any = self.args  # TRL's
        every = args.steps_per_generation * self.num_iterations
        return args.gradient_accumulation_steps % every == 0

    @property
    def _corrects_in_update(self) -> bool:
        """Whether the correction's ratio is made in the pass with gradients."""
        return self.vllm_importance_sampling_correction and self._step_is_one_update and not self.reads_policy

    @property
    def _old_logprobs_are_read(self) -> bool:
        """Whether TRL asks for the policy's log-probabilities before the update."""
        corrects = self.vllm_importance_sampling_correction and not self._corrects_in_update
        return corrects or not self._step_is_one_update

    # TRL's asks for old log-probabilities (policy, then reference) once all completions are there. Ours notes
    # which it will ask for, so that `read` computes them row by row, and hides the correction where the
    # update makes it: TRL reads `vllm_importance_sampling_correction` here and nowhere else before the loss.
    # It breaks if TRL asks in another order (an assertion below) or reads the switch elsewhere.
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._values = {}
        read = {"policy": self._old_logprobs_are_read, "reference": self.beta != 0.0}
        self._asked_for = [name for name, is_read in read.items() if is_read]  # in TRL's order
        corrects = self.vllm_importance_sampling_correction
        self.vllm_importance_sampling_correction = corrects and not self._corrects_in_update
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.vllm_importance_sampling_correction = corrects
            self._values = {}

    def read(
        self, items: Sequence[PromptedProblem], units: Sequence[Unit], completions: Sequence[Completion]
    ) -> None:
        """Let all models read units of this process's rows, which are of `items`; every process calls it."""
        rows, runs = [row for unit in units for row in unit], [len(unit) for unit in units]
        items = [items[row] for row in rows]
        requests = completion_requests(items, completions)
        policy: Sequence[Tensor | None] = [None] * len(rows)
        reference: Sequence[Tensor | None] = [None] * len(rows)
        if "reference" in self._asked_for:
            with self.meter.span("reference"), self.reference_model() as model:
                reference = self.logprobs(model, requests, runs)
        with self.meter.span("reward"):
            if self.reads_policy or "policy" in self._asked_for:
                policy = self.policy_logprobs(requests, runs)
            measured = self.measure(items, completions, policy, runs=runs)
        for row, *values in zip(rows, policy, reference, measured, strict=True):
            self._values[row] = RowValues(*values)

    def policy_logprobs(self, requests: Sequence[Request], runs: Sequence[int] | None = None) -> list[Tensor]:
        """Return the policy's log-probabilities; collective."""
        assert self.model is not None, "the constructor has made it"
        with evaluation_mode(self.model):
            return self.logprobs(self.model, requests, runs)

    @contextmanager
    def reference_model(self) -> Iterator[Any]:
        """Open the reference: a model of its own, or the policy without its adapters."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        assert self.model is not None, "the constructor has made it"
        plain: Any = self.accelerator.unwrap_model(self.model)
        name = "ref" if "ref" in plain.peft_config else None  # as TRL names the copy of trained adapters
        with use_adapter(plain, adapter_name=name), evaluation_mode(self.model):
            yield self.model

    # TRL's runs the model. Ours does so with gradients alone; without them it looks up what `read` has
    # computed.
    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> Any:
        """Return log-probabilities of the completions' tokens, (B, C), 0 where there is none."""
        if torch.is_grad_enabled():
            result = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, **kwargs
            )
            if self._corrects_in_update:
                self._correct(result[0].detach())
            return result
        name = self._asked_for.pop(0)
        assert name == "policy" or self.ref_model is None or model is self.ref_model, (
            "TRL's order has changed"
        )
        logprobs_BC = torch.zeros(len(input_ids), logits_to_keep)
        for row, to_fill in enumerate(logprobs_BC):
            values = getattr(self._values[row], name)
            to_fill[: len(values)] = values
        return logprobs_BC.to(self.accelerator.device), None, None

    # TRL's reads `importance_sampling_ratio` from the inputs after its pass with gradients. Ours keeps those
    # inputs, a copy, so that `_correct` can put the ratio in during that pass.
    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._loss_inputs = dict(inputs)
        return super()._compute_loss(model, self._loss_inputs)

    def _correct(self, policy_BC: Tensor) -> None:
        """Hand TRL's loss the ratio that it is about to read."""
        inputs, mask_BC = self._loss_inputs, sampled_mask(self._loss_inputs)
        ratio = self._correction.ratio(policy_BC, inputs["sampling_per_token_logps"], mask_BC)
        self._ratios.add(ratio, mask_BC)
        inputs["importance_sampling_ratio"] = ratio


def sampled_mask(inputs: dict[str, Any]) -> Tensor:
    """Return which tokens of a micro-batch the engine has sampled, (B, C); others may be put behind them."""
    mask_BC: Tensor = inputs["completion_mask"]
    return mask_BC * inputs["sampled"] if "sampled" in inputs else mask_BC


def rows_together(accelerator: Accelerator, rows_per_pass: int) -> int | None:
    """Return the most rows of a unit, for rows that come one by one; None: all of them are one.

    Where DeepSpeed brings the weights from host memory for each pass, few full ones are best. Where it
    gathers them from the other processes, a pass of one short row takes as long as one of several: a unit is
    as many rows as fit into a pass at their limits. Where weights are whole, each row is read as it comes.
    """
    plugin: Any = accelerator.state.deepspeed_plugin
    if plugin is None or plugin.zero_stage != 3:
        return 1
    if plugin.offload_param_device not in (None, "none"):
        return None
    return rows_per_pass if accelerator.num_processes > 1 else 1


def completion_requests(items: Sequence[PromptedProblem], completions: Sequence[Completion]) -> list[Request]:
    """Return what asks a model for the log-probabilities of the completions' tokens."""
    requests = []
    for item, completion in zip(items, completions, strict=True):
        ids = [*item.prompt_ids, *completion.token_ids]
        requests.append(Request(ids, range(len(item.prompt_ids), len(ids))))
    return requests
