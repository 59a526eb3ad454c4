"""What a teacher makes of a student's completion, by the tokens of that completion.

C tokens of a completion, M of them with the teacher's distribution, K chunks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from rlt.formats.place import Place
from rlt.models.logprobs import Request
from rlt.trainers.taught_answer import Taught

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """What the teacher makes of one completion."""

    num_tokens: int
    chunk_C: Tensor
    """The number of the chunk that each token is in, -1 outside."""
    teacher_C: Tensor
    """log p_T of that chunk, 0 outside."""
    tokens_M: Tensor
    """The tokens that have the teacher's distribution, as places in the completion."""
    values: tuple[Tensor, ...]
    """What `Objective.extra` has read at them besides log-probabilities, of M rows each."""

    def within(self, taught: Taught) -> View:
        """Return the values of the tokens that a changed completion has kept."""
        kept_C = torch.arange(self.num_tokens) < taught.num_own
        torn = self.chunk_C[taught.num_own :][:1]  # of a chunk that is not kept whole nothing is
        kept_C &= (self.chunk_C == -1) | ~torch.isin(self.chunk_C, torn)
        chunk_C, teacher_C = torch.full((len(taught.ids),), -1), torch.zeros(len(taught.ids))
        chunk_C[: taught.num_own] = self.chunk_C.masked_fill(~kept_C, -1)[: taught.num_own]
        teacher_C[: taught.num_own] = self.teacher_C.masked_fill(~kept_C, 0)[: taught.num_own]
        is_kept_M = kept_C[self.tokens_M]
        values = tuple(column[is_kept_M] for column in self.values)
        return View(len(taught.ids), chunk_C, teacher_C, self.tokens_M[is_kept_M], values)

    def counts_C(self, support: str) -> Tensor:
        """Return which tokens are in the loss, (C,)."""
        if support == "sampled":
            return self.chunk_C >= 0
        return torch.zeros(self.num_tokens, dtype=torch.bool).index_fill(0, self.tokens_M, True)


def fit(place: Place, context: int | None) -> Place:
    """Return a place as it is, or one without any token where the teacher's context has no room for it.

    Prompts leave room for `max_completion_length` tokens, and a thought may be longer in another tokenizer's.
    """
    if context is None or len(place.ids) <= context:
        return place
    logger.warning(
        "a completion has %s tokens in the teacher's sequence, of %s at most: it has no token in the loss; "
        "lower max_completion_length or max_prompt_length",
        len(place.ids),
        context,
    )
    return Place(place.ids[:context], [])


def request(place: Place) -> Request:
    """Return what asks for the teacher's values of all tokens in chunks; of any token where there is none."""
    wanted = [i for _, theirs in place.chunks for i in range(theirs.start, theirs.stop)]
    return Request(place.ids, wanted or [1])


def view_of(num_tokens: int, place: Place, values: tuple[Tensor, ...]) -> View:
    """Return the teacher's values by the tokens of a completion."""
    chunk_C, teacher_C = torch.full((num_tokens,), -1), torch.zeros(num_tokens)
    if not place.chunks:
        nothing = torch.empty(0, dtype=torch.long)
        return View(num_tokens, chunk_C, teacher_C, nothing, tuple(column[:0] for column in values[1:]))
    own_K, theirs_K = (
        torch.tensor([run.stop - run.start for run in runs]) for runs in zip(*place.chunks, strict=True)
    )
    numbers_K = torch.arange(len(place.chunks))
    sums_K = torch.zeros(len(numbers_K), dtype=torch.float64)
    sums_K.index_add_(0, numbers_K.repeat_interleave(theirs_K), values[0].double())
    inside = torch.tensor(
        [i for own, _ in place.chunks for i in range(own.start, own.stop)], dtype=torch.long
    )
    chunk_C[inside] = numbers_K.repeat_interleave(own_K)
    teacher_C[inside] = sums_K.float().repeat_interleave(own_K)
    is_token_K = (own_K == 1) & (theirs_K == 1)
    tokens_M = torch.tensor([own.start for own, _ in place.chunks], dtype=torch.long)[is_token_K]
    rows_M = (theirs_K.cumsum(0) - theirs_K)[is_token_K]
    distributions = tuple(column[rows_M] for column in values[1:])
    return View(num_tokens, chunk_C, teacher_C, tokens_M, distributions)


def renamed(ids: Tensor, pair: tuple[int, int] | None) -> Tensor:
    """Return ids in which two that mean the same have changed places."""
    if pair is None:
        return ids
    theirs, ours = pair
    return torch.where(ids == theirs, ours, torch.where(ids == ours, theirs, ids))


def spread(view: View, index: int, count: int) -> Tensor:
    """Return one of the teacher's values for the first `count` tokens of a completion, 0 where none is."""
    column = view.values[index]
    spread = column.new_zeros(view.num_tokens, *column.shape[1:])
    spread[view.tokens_M] = column
    return spread[:count]
