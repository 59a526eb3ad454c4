"""Log-probabilities of chosen tokens, projected only where they are asked for.

A causal model gets a second way to be called: `model(input_ids=…, query=TokenQuery(…))` runs the backbone
and projects the hidden states of the requested positions through the LM head, in tiles, so that no
batch x length x vocabulary tensor exists. It goes through the model's own `__call__`, which keeps the hooks
of DDP and DeepSpeed ZeRO-3 working. Log-softmax is in float32 whatever the model's dtype.

TRL's fused LM head does the same with Triton; this one needs no Triton, projects only the requested positions
on a CPU as well, and takes the temperature per call.

Shapes: B sequences, T tokens, N requested positions, V vocabulary.
"""

from __future__ import annotations

import functools
import logging
import math
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlt.models.gather import gathered
from rlt.models.own_head import OwnHead, Sample, find_own_head, is_partitioned
from rlt.models.passes import split_runs

logger = logging.getLogger(__name__)

_CPU_TILE = (1024, 1024)
"""Positions x entries of the vocabulary whose logits are held at once: 4 MiB of float32 stay in the cache."""
_GPU_TILE_ELEMENTS = 2**27
"""Logits held at once on a GPU, the whole vocabulary in each tile: 512 MiB of float32."""
_CPU_OWN_ELEMENTS = 2**24
"""Logits held at once on a CPU where the model's own forward makes them: 64 MiB of float32."""

_CPU_TOKENS = 8192
"""Tokens of one forward pass on a CPU at most: more take memory for activations and save no time."""


@dataclass(frozen=True)
class Request:
    """A token sequence and the positions whose log-probability is requested (each at least 1)."""

    ids: Sequence[int]
    positions: Sequence[int]


class LogprobModel(Protocol):
    """Something that knows the log-probabilities of given tokens: a model here, or one behind a server."""

    @property
    def version(self) -> Hashable:
        """What changes whenever the weights do; always the same for a frozen model."""
        ...

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
    extra: Extra | None = None
    """Then the model returns what this makes of each position, in place of the log-probabilities alone."""


class Extra(Protocol):
    """What else to read at the requested positions, beside the log-probabilities (distributions.py)."""

    def read(self, own: OwnHead, hidden_ND: Tensor, ids_N: Tensor, query: TokenQuery) -> tuple[Tensor, ...]:
        """Return tensors of N rows, the log-probabilities (N,) first; `ids_N` are read at the positions."""
        ...


def add_token_query(model: nn.Module) -> None:
    """Let `model(input_ids=…, query=TokenQuery(…))` return the requested log-probabilities, shape (N,).

    A few tokens show at once how the model makes its logits (own_head.py); of a model that is sharded with
    ZeRO-3 the first query shows it. Raises ModelError where it cannot be followed. Of a model with adapters
    the one inside is changed. Does nothing the second time.
    """
    inner: Any = without_adapters(model)
    if getattr(inner.forward, "takes_query", False):
        return
    original = inner.forward
    head = QueryHead(inner, original)

    @functools.wraps(original)  # `generate` validates its arguments against the signature
    def forward(_: PreTrainedModel, *args: Any, query: TokenQuery | None = None, **kwargs: Any) -> Any:
        return original(*args, **kwargs) if query is None else head(query, *args, **kwargs)

    forward.takes_query = True  # pyright: ignore[reportAttributeAccessIssue]
    inner.forward = types.MethodType(forward, inner)
    inner.query_head = head  # at the model: accelerate wraps `forward` once more under mixed precision
    if not is_partitioned(inner):
        head.look(inner.device)


def own_head(model: Any, device: torch.device) -> OwnHead:
    """Return the head of a model that has been through `add_token_query`; collective where it is sharded."""
    return without_adapters(model).query_head.look(device).own


def without_adapters(model: Any) -> Any:
    """Return the model inside a wrapper of adapters, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class QueryHead:
    """From a model's inputs and a query to log-probabilities."""

    def __init__(self, model: PreTrainedModel, forward: Callable[..., Any]) -> None:
        self._model = model
        self._forward = forward
        self._sample: Sample | None = None
        self._projects: dict[int, bool] = {}
        """By the head's id: whether its weight and bias make the model's logits."""

    def __call__(
        self, query: TokenQuery, *args: Any, input_ids: Tensor, **kwargs: Any
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the log-probabilities, shape (N,), or what `query.extra` reads."""
        sample = self.look(input_ids.device)
        own, projects = sample.own, self._is_projection(sample)
        hidden_ND = own.hidden(*args, input_ids=input_ids, **kwargs)[query.rows_N, query.columns_N]
        if query.extra is not None:
            return query.extra.read(own, hidden_ND, input_ids[query.rows_N, query.columns_N], query)
        if projects:
            return _project(own.embeddings, hidden_ND, query.targets_N, query.temperature)
        return _own_logprobs(own, hidden_ND, input_ids[query.rows_N, query.columns_N], query)

    def look(self, device: torch.device) -> Sample:
        """Find out how the model makes its logits, once; collective where it is sharded."""
        if self._sample is None:
            self._sample = find_own_head(self._model, self._forward, device)
            self._is_projection(self._sample)
        return self._sample

    def _is_projection(self, sample: Sample) -> bool:
        head = sample.own.embeddings
        if not sample.own.is_linear_module:
            return False
        if id(head) not in self._projects:
            with torch.no_grad():
                self._projects[id(head)] = sample.agrees(
                    lambda hidden_ND, ids_N: _project(head, hidden_ND[:-1], ids_N[1:], 1.0)
                )
            if not self._projects[id(head)]:
                logger.info(
                    "%s does more to its logits than its head: they are taken from its own forward, some "
                    "positions at a time",
                    type(self._model).__name__,
                )
        return self._projects[id(head)]


def _own_logprobs(own: OwnHead, hidden_ND: Tensor, ids_N: Tensor, query: TokenQuery) -> Tensor:
    parts = []
    for hidden, ids, targets in own_slices(own, hidden_ND, ids_N, query.targets_N):
        logits_NV = own.logits(hidden, ids).float() / query.temperature
        parts.append(logits_NV.log_softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1))
    return torch.cat(parts)[: len(hidden_ND)] if parts else hidden_ND.new_zeros(0, dtype=torch.float32)


def own_slices(own: OwnHead, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the rows of tensors in parts whose logits fit in memory; the last ones may be rows to spare.

    Under ZeRO-3 the head is brought together for each part, so all processes make the same number of them;
    collective there.
    """
    on_cpu = tensors[0].device.type == "cpu"
    vocabulary = own.vocabulary
    rows = max(1, (_CPU_OWN_ELEMENTS if on_cpu else _GPU_TILE_ELEMENTS) // vocabulary)
    count = math.ceil(len(tensors[0]) / rows)
    if is_partitioned(own.embeddings):
        counts = torch.tensor(max(count, 1), device=tensors[0].device)
        torch.distributed.all_reduce(counts, torch.distributed.ReduceOp.MAX)
        spare, count = int(counts) * rows - len(tensors[0]), int(counts)
        tensors = tuple(torch.cat([t, t.new_zeros(spare, *t.shape[1:])]) for t in tensors)
    for part in range(count):
        yield tuple(t[part * rows : (part + 1) * rows] for t in tensors)


def _project(head: nn.Linear, hidden_ND: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    logprobs = []
    # Whole once for all tiles. A head that is tied, or that DeepSpeed keeps whole, stays as it is.
    with gathered(head.parameters(recurse=False), only_partitioned=True):
        rows, columns = _tile(hidden_ND.device, len(head.weight))
        for hidden, targets in zip(hidden_ND.split(rows), targets_N.split(rows), strict=True):
            logprobs.append(_tiled_logprobs(head, hidden, targets, temperature, columns))
    return torch.cat(logprobs) if logprobs else hidden_ND.new_zeros(0, dtype=torch.float32)


def _tile(device: torch.device, vocabulary: int) -> tuple[int, int]:
    return _CPU_TILE if device.type == "cpu" else (max(1, _GPU_TILE_ELEMENTS // vocabulary), vocabulary)


def _tiled_logprobs(
    head: nn.Linear, hidden_ND: Tensor, targets_N: Tensor, temperature: float, columns: int
) -> Tensor:
    """Return log-softmax at the targets, shape (N,), with `columns` entries of the vocabulary at a time."""
    hidden_ND = hidden_ND.to(head.weight.dtype)  # some keep their head in float32
    bias_V: Tensor | None = head.bias
    in_float32 = hidden_ND.dtype == torch.float32
    if in_float32:  # exact enough to divide here, which saves a pass over the logits
        hidden_ND = hidden_ND / temperature
        bias_V = None if bias_V is None else bias_V / temperature
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
            logits_NC.copy_(product_NC).div_(temperature)
        column_N = targets_N - start
        is_here_N = (column_N >= 0) & (column_N < len(weight_CD))
        place_N1 = column_N.clamp(0, len(weight_CD) - 1).unsqueeze(1)
        chosen_N = torch.where(is_here_N, logits_NC.gather(1, place_N1).squeeze(1), chosen_N)
        highest_N1 = logits_NC.amax(dim=1, keepdim=True)
        logits_NC.sub_(highest_N1).exp_()
        sums_PN[part] = logits_NC.sum(dim=1).log_().add_(highest_N1.squeeze(1))
    return chosen_N - sums_PN.logsumexp(dim=0)


def _batch(
    requests: list[Request], temperature: float, device: torch.device, extra: Extra | None
) -> tuple[Tensor, TokenQuery]:
    """Return right-padded ids (B, T) and the query; T ends where the last requested token is predicted.

    Right padding needs no attention mask under causal attention: no requested position sees a pad.
    """
    assert all(min(r.positions, default=1) >= 1 for r in requests), "nothing predicts the first token"
    needed = [r.ids[: max(r.positions, default=1)] for r in requests]
    ids_BT = torch.zeros(len(requests), max(map(len, needed)), dtype=torch.long)
    for row, ids in enumerate(needed):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
    rows_N = torch.tensor([row for row, r in enumerate(requests) for _ in r.positions], dtype=torch.long)
    columns_N = torch.tensor([p - 1 for r in requests for p in r.positions], dtype=torch.long)
    targets_N = torch.tensor([r.ids[p] for r in requests for p in r.positions], dtype=torch.long)
    query = TokenQuery(
        rows_N.to(device), columns_N.to(device), targets_N.to(device), temperature=temperature, extra=extra
    )
    return ids_BT.to(device), query


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
    found = token_values(
        *(model, requests, None),
        temperature=temperature,
        tokens_per_batch=tokens_per_batch,
        device=device,
        runs=runs,
        agree=agree,
    )
    return [values[0].float() for values in found]


@torch.no_grad()
def token_values(  # noqa: PLR0913 - options by keyword
    model: Callable[..., Any],
    requests: Sequence[Request],
    extra: Extra | None,
    *,
    temperature: float,
    tokens_per_batch: int,
    device: torch.device,
    runs: Sequence[int] | None = None,
    agree: Callable[[int], int] = lambda count: count,
) -> list[tuple[Tensor, ...]]:
    """Return what `extra` reads at each request's positions, on the CPU, in order.

    Without it, the log-probabilities alone. The other arguments: see `token_logprobs`.
    """
    budget = min(tokens_per_batch, _CPU_TOKENS) if device.type == "cpu" else tokens_per_batch
    lengths = [max(r.positions, default=1) for r in requests]
    batches = split_runs(lengths, [len(requests)] if runs is None else runs, budget)
    results: list[tuple[Tensor, ...]] = [(torch.empty(0),)] * len(requests)
    for batch in _padded_to(batches, agree(len(batches))):
        members = [requests[i] for i in batch] or [Request(ids=[0, 0], positions=[1])]
        ids_BT, query = _batch(members, temperature, device, extra)
        read = model(input_ids=ids_BT, query=query)
        columns = read if isinstance(read, tuple) else (read,)
        counts = [len(r.positions) for r in members]
        rows = zip(*(column.cpu().split(counts) for column in columns), strict=True)
        for i, values in zip(batch, rows, strict=False):
            results[i] = values
    return results


def _padded_to(batches: list[list[int]], count: int) -> Iterator[list[int]]:
    yield from batches
    yield from ([] for _ in range(count - len(batches)))
