"""GRPO without padding that nobody needs, in every forward pass: policy, reference, importance sampling.

What is overridden of TRL's trainer:
- `_prepare_inputs` slices rows of the padded, shuffled generation batch, never columns (trl#7179). Here its
  micro-batches are made again, each as wide as its own rows (micro_batches.py). Where the loss is a sum over
  rows, they are dealt to processes and passes by their length; short ones are joined.
- `training_step` would run a pass for each of a step's gradient_accumulation_steps. Here those whose rows
  have joined others are skipped.
- its fused LM head, for models that it does not know (own_loss.py).
- its passes without gradients run `batch_size` rows at a time at the width of the batch, and on a CPU project
  their prompts too. Here (`logprobs`) each pass is filled with rows of like length.

The number of forward passes of each process stays equal, as ZeRO-3 demands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from rlt.models.gather import max_over_processes
from rlt.models.logprobs import Extra, Request, add_token_query, token_values
from rlt.trainers.grpo_base import GRPOTrainer
from rlt.trainers.meter import Meter
from rlt.trainers.micro_batches import Batch, deal, micro_batch, rows_of
from rlt.trainers.own_loss import adapters_on_the_head, hold_to_own_head

SHARE = "share_of_tokens"
"""Of a micro-batch among those of its step, 1 on average."""
SIZE = "share_of_rows"
"""Rows of a micro-batch by those that TRL takes it to have, per_device_train_batch_size."""
_BY_TOKENS = ("cispo", "dapo", "vespo")
"""Losses that are sums over tokens, divided by the tokens of the whole step."""


class NarrowPasses(GRPOTrainer):
    """GRPO in passes as wide as their rows; a subclass sets `tokens_per_pass` before the first of them."""

    tokens_per_pass: int
    """Tokens of a forward pass without gradients; one row may be longer."""
    joined_tokens: int
    """Passes of the update with short rows are joined up to so many tokens, padding included."""
    meter: Meter
    """Times the passes without gradients."""
    rows_travel: bool = True
    """Rows may be computed by another process than has sampled them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """The arguments are those of GRPOTrainer."""
        with adapters_on_the_head():
            super().__init__(*args, **kwargs)
        for scored in (self.model, self.ref_model):
            if scored is not None:
                plain: Any = self.accelerator.unwrap_model(scored)
                with self.accelerator.autocast():
                    hold_to_own_head(plain, self.temperature)
                    add_token_query(plain)

    # TRL's slices the padded batch of a generation, which it has shuffled, by rows. Ours lets it, then makes
    # the slices again and puts them where it looks next (`_buffered_inputs`). It breaks if TRL keeps them
    # elsewhere.
    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Return the next micro-batch; of each new generation, all are first made as narrow as their rows."""
        assert self.model is not None, "the constructor has made it"
        earlier = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        buffered: Any = self._buffered_inputs
        if not self.model.training or buffered is earlier:
            return inputs
        window = self.args.gradient_accumulation_steps  # the passes of one optimizer step
        narrow = [self._narrow(buffered[i : i + window]) for i in range(0, len(buffered), window)]
        self._buffered_inputs = [batch for batches in narrow for batch in batches]
        return self._buffered_inputs[self._step % len(self._buffered_inputs)]

    def _narrow(self, window: list[Batch]) -> list[Batch]:
        """Return the micro-batches of one optimizer step without columns that nobody needs; collective."""
        rows = [row for batch in window for row in rows_of(batch)]
        per_pass = len(rows) // len(window)
        passes = [list(range(i, i + per_pass)) for i in range(0, len(rows), per_pass)]
        if self._loss_is_a_sum_over_rows() and self.rows_travel:
            rows = gather_object(rows)
            sizes = [row.size for row in rows]
            dealt = deal(sizes, self.accelerator.num_processes, per_pass, self.joined_tokens)
            passes = dealt[self.accelerator.process_index]
        elif self._loss_is_a_sum_over_rows():  # joined, processes would run different numbers of passes
            joined = self.joined_tokens if self.accelerator.num_processes == 1 else 0
            (passes,) = deal([row.size for row in rows], 1, per_pass, joined)
        scalars = {name: value for name, value in window[0].items() if value.dim() == 0}
        pad, device = self._tokenizer.pad_token_id, self.accelerator.device
        assert isinstance(pad, int), "load_tokenizer has seen to a pad token"
        narrow = [micro_batch([rows[i] for i in members], pad, device) for members in passes]
        counts: Any = torch.stack([batch["completion_mask"].sum() for batch in narrow])
        counts = self.accelerator.reduce(counts, "sum")  # of the passes that all processes run together
        shares = counts * len(narrow) / counts.sum().clamp(min=1)
        sizes = [torch.tensor(len(members) / per_pass) for members in passes]
        first, *others = [
            {**batch, **scalars, SHARE: share, SIZE: size}
            for batch, share, size in zip(narrow, shares, sizes, strict=True)
        ]
        # The first call of a step generates, and the last one ends in the optimizer.
        return [first, *({} for _ in range(len(window) - len(passes))), *others]

    # TRL's counts `_step` and times the pass. Ours skips the pass of a micro-batch whose rows have joined
    # others, and counts: `_step` is TRL's place in `_buffered_inputs`.
    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of a micro-batch, 0 without a pass where its rows have joined others."""
        batches: Any = self._buffered_inputs
        if batches and not batches[self._step % len(batches)]:
            self._step += 1
            return torch.zeros((), device=self.accelerator.device)
        return super().training_step(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the loss of a micro-batch.

        Overridden because most losses are means over its rows, and each mean counts as much, whatever the
        number of rows is. And for the metrics that TRL averages over micro-batches, whatever each holds:
        where rows are dealt by length, short rows would count more than long ones. Here each row and each
        token counts once.
        """
        loss = super()._compute_loss(model, inputs)
        if SIZE in inputs and self.loss_type not in _BY_TOKENS:
            loss = loss * inputs[SIZE].item()
        if SHARE in inputs:
            for name in ("kl", "entropy"):
                if values := self._metrics["train"].get(name):
                    values[-1] *= inputs[SHARE].item()
        return loss

    def _loss_is_a_sum_over_rows(self) -> bool:
        """Return whether the loss stays the same whichever micro-batch or process a row is in."""
        averages_by_pass = self.loss_type == "bnpo" or self._entropy_bonus_enabled or self.aux_loss_enabled
        return not averages_by_pass and self.top_entropy_quantile == 1.0

    # TRL's returns them to its loss and forgets them. Ours keeps a view, from which drift is measured.
    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> Any:
        """Return log-probabilities of the completions' tokens, shape (B, C), and keep them."""
        result = self.forward_pass(model, input_ids, attention_mask, logits_to_keep, **kwargs)
        self._loss_logprobs = result[0].detach()
        return result

    def forward_pass(self, *args: Any, **kwargs: Any) -> Any:
        """Return log-probabilities, entropies and auxiliary loss of one pass, as TRL's loss reads them."""
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def loss_logprobs(self, model: Any, ids: Sequence[int], count: int) -> Tensor:
        """Return a model's log-probabilities of the last `count` tokens, (count,), as the loss computes them.

        No gradients. Collective under ZeRO-3.
        """
        ids_1T = torch.tensor([list(ids)], device=self.accelerator.device)
        with torch.no_grad(), evaluation_mode(model):
            # TRL's own method: those of subclasses keep what they see for the loss and the reward.
            result = super()._get_per_token_logps_and_entropies(model, ids_1T, torch.ones_like(ids_1T), count)
        return result[0][0].float().cpu()

    def logprobs(
        self, model: Any, requests: Sequence[Request], runs: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Return a model's log-probabilities at the sampling temperature, on the CPU; collective.

        `runs`: see `token_logprobs`.
        """
        return [found[0].float() for found in self.values(model, requests, None, runs)]

    def values(
        self, model: Any, requests: Sequence[Request], extra: Extra | None, runs: Sequence[int] | None = None
    ) -> list[tuple[Tensor, ...]]:
        """Return what `extra` reads of a model at the sampling temperature, on the CPU; collective."""
        with self.accelerator.autocast():
            return token_values(
                model,
                requests,
                extra,
                temperature=self.temperature,
                tokens_per_batch=self.tokens_per_pass,
                device=self.accelerator.device,
                runs=runs,
                agree=self.max_over_processes,
            )

    def max_over_processes(self, value: int) -> int:
        """Return the largest of the processes' values; collective."""
        return max_over_processes(self.accelerator, value)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch off dropout and gradient checkpointing for a scoring pass."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
