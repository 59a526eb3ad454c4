"""How far a student's next-token distribution is from a teacher's: the losses of on-policy distillation.

For one token, p_S the student's and p_T the teacher's distribution, both at one temperature:

- forward KL    KL(p_T || p_S) = sum_v p_T (log p_T - log p_S)
- reverse KL    KL(p_S || p_T) = sum_v p_S (log p_S - log p_T)
- JS of b       b KL(p_T || m) + (1 - b) KL(p_S || m),  m = b p_T + (1 - b) p_S    (arXiv 2306.13649)

Over the whole vocabulary, or over the teacher's k likeliest tokens and one bucket for all others. On the
sampled token alone there is an estimate of the reverse KL, which `sampled_advantage` gives to a policy
gradient (arXiv 2601.18734). Pure tensors; gradients flow through the student's argument.

N tokens, K entries of a distribution, B rows, C columns of completions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_FULL = -1e-7
"""The log of the mass of k tokens at most, so that the bucket of the others has a logarithm."""


def forward_kl(student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
    """Return KL(p_T || p_S) of each token, (N,), from log-probabilities."""
    return _kl(teacher_NK, student_NK)


def reverse_kl(student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
    """Return KL(p_S || p_T) of each token, (N,), from log-probabilities."""
    return _kl(student_NK, teacher_NK)


def js(student_NK: Tensor, teacher_NK: Tensor, share: float) -> Tensor:
    """Return the generalised Jensen-Shannon divergence of each token, (N,).

    `share` is the teacher's in the mixture, above 0 and below 1.
    """
    student_NK, teacher_NK = _unmasked(student_NK), _unmasked(teacher_NK)
    mixture_NK = torch.logaddexp(student_NK + math.log(1 - share), teacher_NK + math.log(share))
    return share * _kl(teacher_NK, mixture_NK) + (1 - share) * _kl(student_NK, mixture_NK)


def divergence_of(name: str, share: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the divergence that `opd.divergence` names, from (student's, teacher's) log-probabilities."""
    if name == "js":
        return lambda student_NK, teacher_NK: js(student_NK, teacher_NK, share)
    return {"forward_kl": forward_kl, "reverse_kl": reverse_kl}[name]


def with_tail(logprobs_NK: Tensor) -> Tensor:
    """Return the log-probabilities of some tokens, and of all others together, (N, K + 1).

    Divergences of these distributions are lower bounds of those over the whole vocabulary. Without the last
    entry, a student could move its mass to tokens that are not among the K.
    """
    mass_N1 = logprobs_NK.logsumexp(dim=1, keepdim=True).clamp(max=_FULL)
    return torch.cat([logprobs_NK, torch.log(-torch.expm1(mass_N1))], dim=1)


def sampled_advantage(policy_BC: Tensor, teacher_BC: Tensor, chunk_BC: Tensor) -> Tensor:
    """Return log p_T - log p_S of the chunk that each sampled token is in, (B, C); 0 outside of chunks.

    Weighting grad log p_S of a token with it, without discount of later ones, gives the gradient of the
    reverse KL of this token: E_S[grad log p_S (log p_S - log p_T)]. `teacher_BC` holds the chunk's value at
    each of its tokens, `chunk_BC` the number of the chunk, -1 outside. A chunk is one token, or where the two
    models cut the same text into other tokens, the run of tokens that ends at a boundary of both.
    """
    inside_BC = chunk_BC >= 0
    numbers_BC = chunk_BC.clamp(min=0)
    policy_BC = policy_BC.detach()
    sums_BC = torch.zeros_like(policy_BC).scatter_add(1, numbers_BC, policy_BC * inside_BC)
    return torch.where(inside_BC, teacher_BC - sums_BC.gather(1, numbers_BC), 0.0)


def _kl(of_NK: Tensor, against_NK: Tensor) -> Tensor:
    """Return sum p (log p - log q). An entry that both models mask counts 0."""
    of_NK, against_NK = _unmasked(of_NK), _unmasked(against_NK)
    return (of_NK.exp() * (of_NK - against_NK)).sum(dim=1)


def _unmasked(logprobs_NK: Tensor) -> Tensor:
    """Return finite log-probabilities: from -inf, of an entry that a model masks, come NaN gradients."""
    return logprobs_NK.clamp(min=torch.finfo(logprobs_NK.dtype).min / 4)
