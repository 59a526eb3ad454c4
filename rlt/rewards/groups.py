"""r_SS among the explanations of one problem: what an explanation is worth beside the others of its group.

With G explanations of a problem in a step, of which v_i are the values of r_SS:

    rank           (G - number of j with v_j > v_i) / G      from 1/G to 1; ties share their mean
    log_mean_exp   log 1/G sum_j exp(v_j) - log 1/(G-1) sum_{j != i} exp(v_j)

`rank` is the reasoning reward of NOVER (arXiv 2505.16022). `log_mean_exp` is that of JEPO (arXiv 2503.19618):
how much the explanation adds to the bound on log p(s | q) that the group gives, with v = log p(s | q, t).
Pure tensors; a value that is not finite stays as it is and is no member of its group.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


def rank(values_G: Tensor) -> Tensor:
    """Return the share of a group that is no better than each of its members, ties in the middle; (G,)."""
    above_G = (values_G.unsqueeze(0) > values_G.unsqueeze(1)).sum(1)
    ties_G = (values_G.unsqueeze(0) == values_G.unsqueeze(1)).sum(1) - 1
    return 1 - (above_G.to(values_G.dtype) + ties_G / 2) / len(values_G)


def log_mean_exp(values_G: Tensor) -> Tensor:
    """Return by how much each member raises the log of the group's mean probability; (G,), 0 for G = 1."""
    size = len(values_G)
    if size == 1:
        return torch.zeros_like(values_G)
    others_GG = values_G.repeat(size, 1).masked_fill(torch.eye(size, dtype=torch.bool), -torch.inf)
    own = values_G.logsumexp(0) - math.log(size)
    return own - (others_GG.logsumexp(1) - math.log(size - 1))


GROUP_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {"rank": rank, "log_mean_exp": log_mean_exp}


def over_groups(operation: str, values_B: Tensor, keys: Sequence[Hashable]) -> Tensor:
    """Return an operation's value of each row among the rows of the same key, shape (B,)."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if values_B[row].isfinite():
            members[key].append(row)
    result_B = values_B.clone()
    for rows in members.values():
        result_B[rows] = GROUP_OPERATIONS[operation](values_B[rows])
    return result_B
