"""A plain load of a model: what `from_pretrained` gives outside of every wrapper, to measure others against.

ZeRO-3, an engine or a server may change what is no parameter (rotary frequencies, the attention kernel, the
precision). What they compute is compared with this.

N requested positions.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from rlt.errors import ModelError
from rlt.models.frozen import load_whole
from rlt.models.logprobs import Request, token_logprobs
from rlt.models.scaled_head import model_folder, weights_bytes

logger = logging.getLogger(__name__)
_ROOM = 1.25
"""Free memory that a plain load needs, in sizes of its weights: the activations come on top."""


class NoPlainLoad(ModelError):
    """The weights are not on this machine, or do not fit its memory."""


@dataclass(frozen=True)
class PlainModel:
    """Weights on disk, and the dtype in which they are loaded."""

    name: str
    dtype: str
    revision: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class PlainScores:
    """What a plain load says of given tokens."""

    logprobs: list[Tensor]
    """For each request (N,), float32 on the CPU."""
    buffers: dict[str, Tensor]
    """Its buffers by name, on the CPU."""


def score_plainly(
    plain: PlainModel,
    requests: Sequence[Request],
    *,
    temperature: float,
    tokens_per_batch: int,
    device: torch.device,
) -> PlainScores:
    """Return the scores of a plain load that is gone afterwards; no other process takes part.

    It is on `device` where that has room, else on the CPU. Raises NoPlainLoad where neither has.
    """
    folder = model_folder(plain.name, download=False, revision=plain.revision)
    if folder is None:
        raise NoPlainLoad(f"{plain.name} is not on this machine")
    needed = weights_bytes(folder) * (2 if plain.dtype == "float32" else 1)  # files are mostly bfloat16

    def score(place: torch.device) -> PlainScores:
        logger.info("computing the same tokens with a plain load of %s on %s", plain.name, place)
        module = load_whole(str(folder), dtype=plain.dtype, device=place, trust=plain.trust)
        logprobs = token_logprobs(
            module, requests, temperature=temperature, tokens_per_batch=tokens_per_batch, device=place
        )
        return PlainScores(logprobs, {n: b.cpu() for n, b in module.named_buffers() if b is not None})

    if device.type == "cuda":
        torch.cuda.empty_cache()
        if needed * _ROOM < torch.cuda.mem_get_info(device)[0]:
            try:
                return score(device)
            except torch.cuda.OutOfMemoryError:
                logger.info("the GPU has no room for it beside the training")
            finally:
                torch.cuda.empty_cache()
    free = psutil.virtual_memory().available
    if needed * _ROOM > free:
        raise NoPlainLoad(
            f"computing {plain.name} here may take {needed * _ROOM / 2**30:.0f} GiB of memory, and "
            f"{free / 2**30:.0f} GiB are free"
        )
    with _many_threads():
        return score(torch.device("cpu"))


def ids_in_a_row(sources: Iterable[Sequence[int]], size: int) -> list[int]:
    """Return `size` ids of as many sources as it takes, again from the first where all are too few.

    Different ones, since a text that repeats itself hides wrong positions.
    """
    ids: list[int] = []
    for source in sources:
        if len(ids) >= size:
            break
        ids += source
    return (ids * math.ceil(size / max(1, len(ids))))[:size]


def differing_buffers(model: nn.Module, plain: dict[str, Tensor]) -> list[str]:
    """Return which buffers of a wrapped model are not those of a plain load, in words."""
    found = []
    for name, buffer in model.named_buffers():
        name = name.removeprefix("module.").removeprefix("base_model.model.")  # DeepSpeed's and PEFT's
        expected = plain.get(name)
        if expected is None:
            continue
        if buffer.dtype != expected.dtype:
            found.append(f"{name} is {_short(buffer.dtype)} and not {_short(expected.dtype)}")
        elif not torch.equal(buffer.cpu(), expected):
            found.append(f"{name} has other values")
    return found


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _many_threads() -> Iterator[None]:
    """Compute with half of the CPUs that this process may use: launchers leave each process a single one.

    The other processes wait meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, len(os.sched_getaffinity(0)) // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
