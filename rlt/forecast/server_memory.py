"""How a vLLM server divides its GPUs' memory, and how many sequences fit at once."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema import Config
from rlt.forecast.activations import Numbers, bytes_of, forward_by_layer
from rlt.forecast.hardware import CONTEXT_BYTES, GIB
from rlt.models.size import ModelSize
from rlt.surroundings.gpus import GPU


@dataclass(frozen=True)
class ServerMemory:
    """Bytes on each GPU of a vLLM server."""

    weights: float
    working: float
    pool: float
    """What is left for keys and values; may be negative."""
    kv_bytes: float
    """What is kept of a sequence of the full length."""
    sequence: int
    """Tokens of the longest prompt and completion together."""
    max_sequences: int
    """What vLLM runs at once at most."""

    @property
    def sequences(self) -> int:
        """Sequences of the full length that fit at once."""
        return max(0, int(self.pool // self.kv_bytes))


def server_memory(config: Config, gpu: GPU, policy: ModelSize) -> ServerMemory:
    """Return what a vLLM server does with each of its GPUs."""
    generation = config.generation
    width, parallel = bytes_of(generation.dtype), generation.tensor_parallel
    batched, max_sequences = vllm_limits(gpu)
    weights = width * policy.parameters / parallel
    length = config.max_prompt_length + config.max_completion_length
    activations = batched * forward_by_layer(policy, Numbers(width, width, width)) / parallel
    sampling = 3 * 4 * max_sequences * policy.vocabulary  # logits, log-probabilities and a copy, in float32
    working = activations + sampling + CONTEXT_BYTES
    return ServerMemory(
        weights=weights,
        working=working,
        pool=generation.gpu_memory_utilization * gpu.memory - weights - working,
        kv_bytes=sequence_bytes(config, policy, length),
        sequence=length,
        max_sequences=max_sequences,
    )


def sequence_bytes(config: Config, policy: ModelSize, length: float) -> float:
    """Return the bytes of a sequence's keys, values and states on each GPU of a server."""
    generation = config.generation
    shared = min(generation.tensor_parallel, policy.kv_heads)
    return policy.kv_bytes(bytes_of(generation.dtype), length) / shared


def vllm_limits(gpu: GPU) -> tuple[int, int]:
    """Return vLLM's defaults for a server (vllm/engine/arg_utils.py): tokens of a pass, sequences at once."""
    if gpu.memory >= 160 * GIB:
        return 16384, 1024
    return (8192, 1024) if gpu.memory >= 70 * GIB and "A100" not in gpu.name else (2048, 256)
