"""What transformers' decoder layers hold in memory: bytes for each token, forward and backward.

Attention scores are not among it: FlashAttention and SDPA never have them whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlt.models.size import ModelSize

if TYPE_CHECKING:  # so that scripts/bench_gpu.py needs no omegaconf
    from rlt.config.schema import Config

WITHOUT_DEEPSPEED = ("single", "ddp")
"""Strategies under which weights are float32, and bfloat16 is autocast's."""


@dataclass(frozen=True)
class Numbers:
    """Bytes of one number."""

    weight: int
    compute: int
    """What matrix products read and write."""
    stream: int
    """What runs between the layers."""

    @classmethod
    def of(cls, config: Config, strategy: str) -> Numbers:
        """Return what trainers/arguments.py asks for: without DeepSpeed float32 weights under autocast."""
        compute = bytes_of(config.model.dtype)
        weight = 4 if strategy in WITHOUT_DEEPSPEED else compute
        return cls(weight, compute, stream=weight)

    @property
    def is_autocast(self) -> bool:
        """Whether weights and inputs are cast for each product."""
        return self.compute < self.weight


def bytes_of(dtype: str) -> int:
    """Return the bytes of a number."""
    return {"bfloat16": 2, "float32": 4}[dtype]


def saved_by_layer(size: ModelSize, numbers: Numbers) -> int:
    """Return the bytes for each token that a decoder layer keeps for its backward pass."""
    compute, stream, hidden = numbers.compute, numbers.stream, size.hidden
    mlp = 4 * compute * size.intermediate  # gate, its activation, up, their product
    attention = compute * (2 * size.query + 2 * size.key) + 4 * size.heads  # q, k, v, result; log-sum-exp
    if numbers.is_autocast:  # each product has a cast of its input: q, k, v, gate, up
        norms = 2 * (4 + stream) * hidden + 5 * compute * hidden
    elif stream == 4:  # the norm's float32 input is the stream itself
        norms = 2 * 3 * 4 * hidden
    else:
        norms = 2 * (4 + 2 * stream) * hidden
    return mlp + attention + norms + 8


def training_activations(
    size: ModelSize, numbers: Numbers, *, tokens: int, checkpointing: bool
) -> tuple[float, float]:
    """Return the bytes that wait for the backward pass, and those of the layer that it is in.

    With gradient checkpointing layers keep their input alone, and one at a time is recomputed.
    """
    saved = saved_by_layer(size, numbers)
    gradients = 2 * numbers.compute * size.intermediate + 4 * numbers.stream * size.hidden
    if checkpointing:
        return float(tokens * size.layers * numbers.stream * size.hidden), float(tokens * (saved + gradients))
    return float(tokens * size.layers * saved), float(tokens * gradients)


def forward_by_layer(size: ModelSize, numbers: Numbers) -> int:
    """Return the bytes for each token that are there at once in a layer, and after it, without gradients."""
    compute, stream = numbers.compute, numbers.stream
    rotations_and_ids = 2 * compute * size.head_dim + 2 * 8
    return 3 * compute * size.intermediate + 2 * (stream + compute) * size.hidden + rotations_and_ids
