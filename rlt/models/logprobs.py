"""Log-probabilities of chosen tokens, projected only where they are asked for.

A causal model gets a second way to be called: `model(input_ids=…, query=TokenQuery(…))` runs the backbone
and projects the hidden states of the wanted positions through the LM head, in tiles, so that no
batch x length x vocabulary tensor exists. It goes through the model's own `__call__`, which keeps the hooks
of DDP and DeepSpeed ZeRO-3 working. Log-softmax is in float32 whatever the model's dtype.

TRL's fused LM head does the same with Triton; this one needs no Triton, projects only the wanted positions
on a CPU as well, and takes the temperature per call.

Shapes: B sequences, T tokens, N wanted positions, V vocabulary.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlt.models.gather import gathered
from rlt.models.logit_map import LogitMap
from rlt.models.passes import split_runs

_CPU_TILE = (1024, 1024)
"""Positions x entries of the vocabulary whose logits are held at once: 4 MiB of float32 stay in the cache."""
_GPU_TILE_ELEMENTS = 2**27
"""Logits held at once on a GPU, the whole vocabulary in each tile: 512 MiB of float32."""

_CPU_TOKENS = 8192
"""Tokens of one forward pass on a CPU at most: more take memory for activations and save no time."""


@dataclass(frozen=True)
class Request:
    """A token sequence and the positions whose log-probability is wanted (each at least 1)."""

    ids: Sequence[int]
    positions: Sequence[int]


class LogprobModel(Protocol):
    """Something that knows the log-probabilities of given tokens: a model here, or one behind a server."""

    def logprobs(
        self,
        requests: list[Request],
        *,
        temperature: float,
        tokens_per_batch: int,
        runs: Sequence[int] | None = None,
        agree: Callable[[int], int] = lambda count: count,
    ) -> list[Tensor]:
        """Return the log-probabilities of each request's positions, float32 on the CPU, in order.

        `runs`: numbers of consecutive requests of which none may depend on those of another run.
        """
        ...


@dataclass(frozen=True)
class TokenQuery:
    """Where to project: hidden state `columns_N` of row `rows_N` predicts `targets_N`."""

    rows_N: Tensor
    columns_N: Tensor
    targets_N: Tensor
    temperature: float


def add_token_query(model: PreTrainedModel) -> None:
    """Let `model(input_ids=…, query=TokenQuery(…))` return the wanted log-probabilities, shape (N,).

    Does nothing the second time.
    """
    if getattr(model.forward, "takes_query", False):
        return
    logit_map = LogitMap.of(model.config.get_text_config())
    original = model.forward

    @functools.wraps(original)  # `generate` validates its arguments against the signature
    def forward(self: PreTrainedModel, *args: Any, query: TokenQuery | None = None, **kwargs: Any) -> Any:
        if query is None:
            return original(*args, **kwargs)
        backbone: Any = self.base_model
        hidden_BTD = backbone(*args, use_cache=False, **kwargs).last_hidden_state
        return _project(self, hidden_BTD[query.rows_N, query.columns_N], query, logit_map)

    forward.takes_query = True  # pyright: ignore[reportAttributeAccessIssue]
    model.forward = types.MethodType(forward, model)


def _project(model: PreTrainedModel, hidden_ND: Tensor, query: TokenQuery, logit_map: LogitMap) -> Tensor:
    head: Any = model.get_output_embeddings()
    logprobs = []
    # Whole once for all tiles. A head that is tied, or that DeepSpeed keeps whole, stays as it is.
    with gathered(head.parameters(recurse=False), only_partitioned=True):
        rows, columns = _tile(hidden_ND.device, len(head.weight))
        for hidden, targets in zip(hidden_ND.split(rows), query.targets_N.split(rows), strict=True):
            logprobs.append(_tiled_logprobs(head, hidden, targets, query.temperature, columns, logit_map))
    return torch.cat(logprobs) if logprobs else hidden_ND.new_zeros(0, dtype=torch.float32)


def _tile(device: torch.device, vocabulary: int) -> tuple[int, int]:
    return _CPU_TILE if device.type == "cpu" else (max(1, _GPU_TILE_ELEMENTS // vocabulary), vocabulary)


def _tiled_logprobs(
    head: Any,
    hidden_ND: Tensor,
    targets_N: Tensor,
    temperature: float,
    columns: int,
    logit_map: LogitMap = LogitMap(),  # noqa: B008 - frozen
) -> Tensor:
    """Return log-softmax at the targets, shape (N,), with `columns` entries of the vocabulary at a time."""
    hidden_ND = hidden_ND.to(head.weight.dtype)  # some keep their head in float32
    bias_V = head.bias
    in_float32 = hidden_ND.dtype == torch.float32
    is_linear = logit_map.cap is None
    if in_float32 and is_linear:  # exact enough to scale here, which saves a pass over the logits
        factor = logit_map.scale / temperature
        hidden_ND = hidden_ND * factor
        bias_V = None if bias_V is None else bias_V * factor
    num_rows, starts = len(hidden_ND), range(0, len(head.weight), columns)
    sums_PN = hidden_ND.new_empty(len(starts), num_rows, dtype=torch.float32)
    chosen_N = hidden_ND.new_zeros(num_rows, dtype=torch.float32)
    # One buffer for all parts: a fresh one each time would leave the heap of a CPU in pieces.
    buffer = hidden_ND.new_empty(num_rows * columns)
    as_float = buffer if in_float32 else buffer.float()
    for part, start in enumerate(starts):
        weight_CD = head.weight[start : start + columns]
        shape = num_rows, len(weight_CD)
        product_NC, logits_NC = (x[: shape[0] * shape[1]].view(shape) for x in (buffer, as_float))
        torch.mm(hidden_ND, weight_CD.T, out=product_NC)
        if bias_V is not None:
            product_NC += bias_V[start : start + columns]
        if not in_float32:
            logits_NC.copy_(product_NC)
        if not (in_float32 and is_linear):
            logit_map.into_logits_(logits_NC, temperature)
        column_N = targets_N - start
        is_here_N = (column_N >= 0) & (column_N < len(weight_CD))
        place_N1 = column_N.clamp(0, len(weight_CD) - 1).unsqueeze(1)
        chosen_N = torch.where(is_here_N, logits_NC.gather(1, place_N1).squeeze(1), chosen_N)
        highest_N1 = logits_NC.amax(dim=1, keepdim=True)
        logits_NC.sub_(highest_N1).exp_()
        sums_PN[part] = logits_NC.sum(dim=1).log_().add_(highest_N1.squeeze(1))
    return chosen_N - sums_PN.logsumexp(dim=0)


def _batch(requests: list[Request], temperature: float, device: torch.device) -> tuple[Tensor, TokenQuery]:
    """Return right-padded ids (B, T) and the query; T ends where the last wanted token is predicted.

    Right padding needs no attention mask under causal attention: no wanted position sees a pad.
    """
    assert all(min(r.positions, default=1) >= 1 for r in requests), "nothing predicts the first token"
    needed = [r.ids[: max(r.positions, default=1)] for r in requests]
    ids_BT = torch.zeros(len(requests), max(map(len, needed)), dtype=torch.long)
    for row, ids in enumerate(needed):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
    query = TokenQuery(
        rows_N=torch.tensor([row for row, r in enumerate(requests) for _ in r.positions], dtype=torch.long),
        columns_N=torch.tensor([p - 1 for r in requests for p in r.positions], dtype=torch.long),
        targets_N=torch.tensor([r.ids[p] for r in requests for p in r.positions], dtype=torch.long),
        temperature=temperature,
    )
    on_device = TokenQuery(
        query.rows_N.to(device), query.columns_N.to(device), query.targets_N.to(device), temperature
    )
    return ids_BT.to(device), on_device


@torch.no_grad()
def token_logprobs(
    model: Callable[..., Any],
    requests: Sequence[Request],
    *,
    temperature: float,
    tokens_per_batch: int,
    device: torch.device,
    runs: Sequence[int] | None = None,
    agree: Callable[[int], int] = lambda count: count,
) -> list[Tensor]:
    """Return the natural-log probabilities of each request's positions, float32 on the CPU, in order.

    `runs` are numbers of consecutive requests that share batches with each other alone, as values depend on
    their company by rounding; None: all may.
    `model` has been through `add_token_query`. Under ZeRO-3 a forward pass is a collective operation:
    `agree` then returns the largest number of batches over all ranks, and shorter ranks run dummies.
    """
    budget = min(tokens_per_batch, _CPU_TOKENS) if device.type == "cpu" else tokens_per_batch
    lengths = [max(r.positions, default=1) for r in requests]
    batches = split_runs(lengths, [len(requests)] if runs is None else runs, budget)
    results: list[Tensor] = [torch.empty(0)] * len(requests)
    for batch in _padded_to(batches, agree(len(batches))):
        members = [requests[i] for i in batch] or [Request(ids=[0, 0], positions=[1])]
        ids_BT, query = _batch(members, temperature, device)
        logprobs = model(input_ids=ids_BT, query=query).float().cpu()
        for i, part in zip(batch, logprobs.split([len(r.positions) for r in members]), strict=False):
            results[i] = part
    return results


def _padded_to(batches: list[list[int]], count: int) -> Iterator[list[int]]:
    yield from batches
    yield from ([] for _ in range(count - len(batches)))
