"""A teacher's next-token distributions at chosen positions: its likeliest tokens, or what gives all of them.

A whole distribution is a vocabulary of numbers for each token. So it is kept as the hidden state that it is
made from, some thousand numbers, and the teacher's own head makes it when the loss needs it.

N positions, K likeliest tokens, D dimensions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlt.models.logprobs import TokenQuery, own_slices
from rlt.models.own_head import OwnHead


@dataclass(frozen=True)
class TopTokens:
    """Reads (log p of the token (N,), log p of the K likeliest tokens (N, K), their ids (N, K))."""

    count: int
    temperature: float
    """Of the likeliest tokens; the query's is that of the given ones."""
    vocabulary: int
    """Ids from here on are no tokens: tables of embeddings are padded to various sizes."""

    def read(self, own: OwnHead, hidden_ND: Tensor, ids_N: Tensor, query: TokenQuery) -> tuple[Tensor, ...]:
        """Return the three tensors, in float32 or wider."""
        parts = []
        for hidden, ids, targets in own_slices(own, hidden_ND, ids_N, query.targets_N):
            logits_NV = widened(own.logits(hidden, ids)[:, : self.vocabulary])
            given_N = given_logprobs(logits_NV, targets, query.temperature)
            top = (logits_NV / self.temperature).log_softmax(1).topk(min(self.count, logits_NV.shape[1]), 1)
            parts.append((given_N, top.values, top.indices))
        if not parts:
            empty_NK = hidden_ND.new_zeros(0, self.count, dtype=torch.float32)
            return empty_NK[:, 0], empty_NK, empty_NK.long()
        return tuple(torch.cat(column)[: len(hidden_ND)] for column in zip(*parts, strict=True))


@dataclass(frozen=True)
class HiddenStates:
    """Reads (log p of the token (N,), hidden states (N, D), the ids that were read there (N,))."""

    vocabulary: int

    def read(self, own: OwnHead, hidden_ND: Tensor, ids_N: Tensor, query: TokenQuery) -> tuple[Tensor, ...]:
        """Return the three tensors, hidden states in the model's dtype."""
        parts = [widened(hidden_ND.new_zeros(0))]
        for hidden, ids, targets in own_slices(own, hidden_ND, ids_N, query.targets_N):
            logits_NV = widened(own.logits(hidden, ids)[:, : self.vocabulary])
            parts.append(given_logprobs(logits_NV, targets, query.temperature))
        return torch.cat(parts)[: len(hidden_ND)], hidden_ND, ids_N


def widened(logits: Tensor) -> Tensor:
    """Return logits in float32, or in float64 where they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def given_logprobs(logits_NV: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    """Return log p of the given tokens, (N,)."""
    return (logits_NV / temperature).log_softmax(1).gather(1, targets_N.unsqueeze(1)).squeeze(1)
