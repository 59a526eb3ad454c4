"""The student's side of a divergence: from one forward pass to each token's distance from the teacher.

TRL's DistillationTrainer makes both models read the same ids in the same pass, projects with the weights of
their heads alone, and knows some families' scales and caps by name. Here the teacher has read another prompt
long before, and both heads are the models' own forward (rlt/models/own_head.py). Logits exist for a part of
the positions at a time, and are made again in the backward pass.

N tokens with a loss, B sequences, T tokens, K likeliest tokens of the teacher, V vocabulary.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from rlt.errors import ModelError
from rlt.models.distributions import widened
from rlt.models.logprobs import own_head, own_slices, without_adapters
from rlt.models.own_head import OwnHead
from rlt.trainers.divergence import with_tail
from rlt.trainers.own_loss import IGNORED

Divergence = Callable[[Tensor, Tensor], Tensor]
"""From the student's and the teacher's log-probabilities (N, K) to the distance of each token (N,)."""


@dataclass
class DivergenceOutput(FusedCausalLMOutput):
    """What TRL's losses read, and the divergence of each token, (B, T - 1); 0 where there is no label."""

    divergence: Tensor | None = None


@dataclass(frozen=True)
class TopTargets:
    """The teacher's likeliest tokens at each token with a label, in the order of the labels."""

    logprobs_NK: Tensor
    ids_NK: Tensor
    is_whole: bool
    """They are all tokens that there are, so there is no other."""

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The tensors of N rows."""
        return self.logprobs_NK, self.ids_NK

    def pairs(self, student_NV: Tensor, logprobs_NK: Tensor, ids_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's log-probabilities that are compared."""
        own_NK = student_NV.gather(1, ids_NK)
        if self.is_whole:
            return own_NK, logprobs_NK.to(own_NK.dtype)
        return with_tail(own_NK), with_tail(logprobs_NK.to(own_NK.dtype))


@dataclass(frozen=True)
class WholeTargets:
    """The teacher's hidden states at each token with a label, and its head."""

    hidden_ND: Tensor
    ids_N: Tensor
    head: OwnHead
    temperature: float
    renamed: tuple[int, int] | None
    """(teacher's, student's) id of tokens that mean the same."""

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The tensors of N rows."""
        return self.hidden_ND, self.ids_N

    def pairs(self, student_NV: Tensor, hidden_ND: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's log-probabilities that are compared."""
        with torch.no_grad():
            logits_NV = self.head.logits(hidden_ND, ids_N)[:, : student_NV.shape[1]]
            teacher_NV = (logits_NV.to(student_NV.dtype) / self.temperature).log_softmax(1)
            if self.renamed is not None:
                theirs, ours = self.renamed
                teacher_NV[:, [theirs, ours]] = teacher_NV[:, [ours, theirs]]
        return student_NV, teacher_NV


@dataclass(frozen=True)
class Against:
    """What a forward pass is compared with."""

    targets: TopTargets | WholeTargets
    divergence: Divergence
    temperature: float
    """Of the divergence; log-probabilities and entropies are at that of the samples."""
    vocabulary: int
    """Ids below are tokens of both models."""


def add_divergence(model: nn.Module, temperature: float) -> None:
    """Let `model(input_ids=…, labels=…, against=Against(…))` return a `DivergenceOutput`.

    It goes through the model's own `__call__`, as the hooks of DDP and DeepSpeed need. The model has been
    through `add_token_query`. `temperature` is that of the samples.
    """
    inner: Any = without_adapters(model)
    original = inner.forward
    head = DivergenceHead(inner, temperature)

    @functools.wraps(original)
    def forward(_: nn.Module, *args: Any, against: Against | None = None, **kwargs: Any) -> Any:
        return original(*args, **kwargs) if against is None else head(against, *args, **kwargs)

    inner.forward = types.MethodType(forward, inner)


class DivergenceHead:
    """From a model's inputs and labels to each token's divergence."""

    def __init__(self, model: Any, temperature: float) -> None:
        self._model = model
        self._temperature = temperature

    def __call__(
        self, against: Against, *args: Any, input_ids: Tensor, labels: Tensor, **kwargs: Any
    ) -> DivergenceOutput:
        """Return divergences, log-probabilities and entropies, (B, T - 1) each."""
        if kwargs.pop("output_router_logits", False):
            raise ModelError(
                f"the auxiliary loss of the experts of {type(self._model).__name__} is not computed beside a "
                "divergence: set trainer_args.router_aux_loss_coef=0"
            )
        own = own_head(self._model, input_ids.device)
        hidden_BTD, targets_BT = own.hidden(*args, input_ids=input_ids, **kwargs)[:, :-1], labels[:, 1:]
        mask_BT = targets_BT != IGNORED
        ids_N, targets_N = input_ids[:, :-1][mask_BT], targets_BT[mask_BT]
        given = against.targets.columns
        assert all(len(column) == len(targets_N) for column in given), "one teacher's row for each label"
        slices = own_slices(own, hidden_BTD[mask_BT], ids_N, targets_N, *given)
        parts = [checkpoint(self._score, own, against, *part, use_reentrant=False) for part in slices]
        zero = widened(hidden_BTD.sum() * 0.0)  # a batch without labels still has gradients, of 0
        columns = zip(*parts, strict=True) if parts else [()] * 4
        divergence, log_probs, entropy, is_top1 = (
            _placed(zero, mask_BT, torch.cat(column) if parts else None) for column in columns
        )
        return DivergenceOutput(
            loss=divergence.sum() / mask_BT.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            is_top1=is_top1.bool(),
            label_mask=mask_BT,
            divergence=divergence,
        )

    def _score(
        self,
        own: OwnHead,
        against: Against,
        hidden_ND: Tensor,
        ids_N: Tensor,
        targets_N: Tensor,
        *columns: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return divergence, log-probability, entropy, and whether the target is the likeliest; (N,) each."""
        logits_NV = widened(own.logits(hidden_ND, ids_N))
        logprobs_NV = (logits_NV / self._temperature).log_softmax(1)
        shared_NV = logits_NV[:, : against.vocabulary] / against.temperature
        pairs = against.targets.pairs(shared_NV.log_softmax(1), *columns)
        entropy_N = -(logprobs_NV.exp() * logprobs_NV.clamp(min=torch.finfo(logprobs_NV.dtype).min)).sum(1)
        return (
            against.divergence(*pairs),
            logprobs_NV.gather(1, targets_N.unsqueeze(1)).squeeze(1),
            entropy_N,
            (logprobs_NV.argmax(1) == targets_N).to(logprobs_NV.dtype),
        )


def _placed(zero: Tensor, mask_BT: Tensor, values_N: Tensor | None) -> Tensor:
    """Return the values of the labels in their places; the last ones may be of rows to spare."""
    spread_BT = zero.expand(mask_BT.shape)
    if values_N is None:
        return spread_BT
    return spread_BT.masked_scatter(mask_BT, values_N.to(zero.dtype))
