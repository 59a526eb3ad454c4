"""How many bytes a training GPU needs, part by part.

Model states (weights, gradients, optimizer) follow DeepSpeed's own estimators. Logits exist in tiles only, in
TRL's loss as in the scorer. Rows have their largest length, since one such batch is enough to run out. The
memory of students that answer by themselves (reward.answers) is not counted.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from rlt.config.beside import role_beside, settings_beside
from rlt.config.judges import pays_likelihood
from rlt.config.lengths import row_length, tokens_per_pass
from rlt.config.schema import Config, stage_of
from rlt.forecast.activations import (
    WITHOUT_DEEPSPEED,
    Numbers,
    bytes_of,
    forward_by_layer,
    training_activations,
)
from rlt.forecast.hardware import CONTEXT_BYTES, NCCL_BYTES, USABLE_SHARE
from rlt.models.attention import Abilities, resolve_attention
from rlt.models.size import ModelSize
from rlt.surroundings.gpus import GPU

Parts = dict[str, float]
"""Bytes by name."""
SHARDED = ("zero3", "offload")
"""Strategies under which no process holds all weights."""

LIVE_PARAMETERS = 10**9
"""DeepSpeed's stage3_max_live_parameters: weights that ZeRO-3 holds whole at a time."""
HOST_FACTOR = 1.5
"""DeepSpeed's additional_buffer_factor, for host memory."""
LOSS_TILE = 4096, 32768
"""Positions x entries of the vocabulary in a tile of TRL's loss (trl/kernels/chunked_logprob.py)."""
_TOKENS_STEP = 256
"""What the tokens that a micro-batch may hold are rounded down to."""
SCORING_TILE = 2**27
"""Logits in a tile of our scorer (rlt/models/logprobs.py)."""


@dataclass(frozen=True)
class Models:
    """The sizes of all models of a run."""

    policy: ModelSize
    students: tuple[ModelSize, ...] = ()
    """Frozen ones that score on the training GPUs, or would."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each training GPU, and in the host memory of their machine."""

    kept: Parts
    """There all the time."""
    phases: dict[str, Parts]
    """What comes on top in each phase of a step; only one of them at a time."""
    host: float

    @property
    def peak(self) -> float:
        """The most that is there at once."""
        return sum(self.kept.values()) + max(sum(parts.values()) for parts in self.phases.values())

    def fits(self, gpu: GPU) -> bool:
        """Whether it fits a GPU, with room for the allocator's gaps."""
        return self.peak <= USABLE_SHARE * gpu.memory


def training_memory(config: Config, strategy: str, processes: int, models: Models) -> TrainingMemory:
    """Return what training under a strategy of cfgs/accelerate (or `single`) needs on each of its GPUs."""
    numbers = Numbers.of(config, strategy)
    policy, trained = models.policy, trained_parameters(config, models.policy)
    sums = 4 if config.trainer.grad_accum_dtype == "float32" else numbers.weight
    kept = state_bytes(policy.parameters, trained, strategy, processes, numbers.weight, sums)
    host = 0.0
    if strategy == "offload":
        states = (16 + sums - numbers.weight) * trained
        host = HOST_FACTOR * (numbers.weight * policy.parameters + states)
    if stage_of(config).is_rl and config.trainer.beta and not config.model.lora.rank:
        kept["reference"] = _frozen(policy.parameters * numbers.weight, strategy, processes)
        host += (strategy == "offload") * policy.parameters * numbers.weight
    beside, role = settings_beside(config), role_beside(config)
    if beside is not None and models.students:
        width = bytes_of(beside.dtype)
        whole = width * sum(student.parameters for student in models.students)
        if beside.placement == "replicated":
            kept[role] = whole
        elif beside.placement == "zero3":
            kept[role] = _frozen(whole, strategy, processes)
            host += (strategy == "offload") * whole
        elif beside.placement == "cpu_offload":
            host += processes * whole
    kept["CUDA"] = CONTEXT_BYTES
    kept["NCCL"] = NCCL_BYTES * num_communicators(config, strategy, processes)
    return TrainingMemory(kept, _phases(config, strategy, processes, models, numbers), host)


def trained_parameters(config: Config, policy: ModelSize) -> int:
    """Return how many parameters the optimizer moves."""
    lora = config.model.lora
    return policy.lora_parameters(lora.rank, lora.target_modules) if lora.rank else policy.parameters


def num_communicators(config: Config, strategy: str, processes: int) -> int:
    """Return the NCCL communicators of rank 0: torch's, DeepSpeed's own, and that of the weight sync."""
    generation = config.generation
    is_served = stage_of(config).is_rl and generation.backend == "vllm"
    syncs = is_served and generation.weight_sync != "checkpoint"
    return (processes > 1) + (processes > 1 and strategy not in WITHOUT_DEEPSPEED) + syncs


def state_bytes(
    parameters: int, trained: int, strategy: str, processes: int, weight: int, sums: int | None = None
) -> Parts:
    """Return the bytes of weights, gradients and AdamW's state on one GPU.

    Under DeepSpeed as its estimators count them: a gradient is held as it is summed and once more in float32,
    and the optimizer has a float32 copy of the weights beside its two moments. `sums` are the bytes of a
    number of those sums (trainer.grad_accum_dtype); the estimators take the weights' dtype.
    """
    sums = weight if sums is None else sums
    if strategy in WITHOUT_DEEPSPEED:
        return {"weights": weight * parameters, "gradients": weight * trained, "optimizer": 8 * trained}
    if strategy == "offload":
        return {"weights": 0, "gradients": 0, "optimizer": 0}
    share = trained / processes
    # With float32 sums of bfloat16 gradients ZeRO-1 is DeepSpeed's BF16_Optimizer: whole sums, held once.
    unsharded = (weight + sums) * trained if sums > weight else weight * trained + 4 * share
    weights, gradients = {
        "zero3": (weight * parameters / processes, (4 + sums - weight) * share),
        "zero2": (weight * parameters, (sums + 4) * share),
        "zero1": (weight * parameters, unsharded),
    }[strategy]
    return {"weights": weights, "gradients": gradients, "optimizer": 12 * share}


def _frozen(whole: float, strategy: str, processes: int) -> float:
    """Return what a model without gradients takes that DeepSpeed shards wherever the policy is sharded."""
    return {"zero3": whole / processes, "offload": 0.0}.get(strategy, whole)


def _phases(
    config: Config, strategy: str, processes: int, models: Models, numbers: Numbers
) -> dict[str, Parts]:
    policy, batch = models.policy, config.per_device_train_batch_size
    tokens = batch * row_length(config)
    buffers = _update_buffers(config, strategy, processes, policy, numbers)
    recomputes = bool(config.trainer.gradient_checkpointing)  # auto: the longest rows do
    phases = _update(config, policy, numbers, buffers, tokens=tokens, checkpointing=recomputes)
    if pays_likelihood(config) or stage_of(config).is_judged:
        phases["scoring"] = _scoring(config, strategy, models, numbers)
    if stage_of(config).is_rl and config.generation.backend == "transformers":
        phases["generating"] = {
            "whole policy": policy.parameters * numbers.weight * (strategy in SHARDED),
            "keys and values": batch * policy.kv_bytes(numbers.compute, row_length(config)),
            "logits": 3 * 4 * batch * policy.vocabulary,
        }
    return phases


def _update(
    config: Config, policy: ModelSize, numbers: Numbers, buffers: Parts, *, tokens: int, checkpointing: bool
) -> dict[str, Parts]:
    """Return what the update of a micro-batch of so many tokens takes."""
    kept, layer = training_activations(policy, numbers, tokens=tokens, checkpointing=checkpointing)
    length = tokens // config.per_device_train_batch_size
    attention = _attention_bytes(config, policy, numbers, length)
    head = _head_bytes(config, policy, numbers, tokens)
    waiting: Parts = {"waiting for backward": kept}
    return {
        "update, in a layer": {**waiting, "one layer": layer, "attention": attention, **buffers},
        "update, at the LM head": {**waiting, "LM head": head, **buffers},
    }


def tokens_that_fit(config: Config, strategy: str, processes: int, models: Models, gpu: GPU) -> int:
    """Return the tokens, padding included, up to which a micro-batch may keep its activations on a GPU."""
    numbers = Numbers.of(config, strategy)
    buffers = _update_buffers(config, strategy, processes, models.policy, numbers)
    kept = training_memory(config, strategy, processes, models).kept

    def fits(tokens: int) -> bool:
        phases = _update(config, models.policy, numbers, buffers, tokens=tokens, checkpointing=False)
        return TrainingMemory(kept, phases, 0.0).fits(gpu)

    sizes = range(0, config.per_device_train_batch_size * row_length(config) + 1, _TOKENS_STEP)
    return sizes[max(0, bisect_left(sizes, True, key=lambda tokens: not fits(tokens)) - 1)]


def _update_buffers(
    config: Config, strategy: str, processes: int, policy: ModelSize, numbers: Numbers
) -> Parts:
    if (
        strategy in SHARDED
    ):  # what is gathered ahead, and the gradient of the largest module before it is shared
        largest = 0 if config.model.lora.rank else policy.largest
        return {"gathered": numbers.weight * (_live(policy) + largest)}
    if strategy in WITHOUT_DEEPSPEED:
        casts = numbers.compute * policy.parameters if numbers.is_autocast else 0
        buckets = numbers.weight * trained_parameters(config, policy) if processes > 1 else 0
        return {"casts and buckets": casts + buckets}
    return {}


def _live(size: ModelSize) -> int:
    return max(size.largest, min(size.parameters, LIVE_PARAMETERS))


def attention_on_gpu(config: Config) -> str:
    """Return the attention of the policy on GPUs. Every family that has a forecast can use all of them."""
    found = resolve_attention(config.model.attn_implementation, config.model.dtype, Abilities())
    return found.implementation


def _attention_bytes(config: Config, policy: ModelSize, numbers: Numbers, length: int) -> float:
    """Return what grows with the square of the length: nothing in FlashAttention."""
    kernel = attention_on_gpu(config)
    square = config.per_device_train_batch_size * length**2
    if kernel == "eager":
        return square * policy.heads * (4 + 2 * numbers.compute)
    is_padded = config.per_device_train_batch_size > 1  # one row is as wide as itself: no mask
    mask = square * (1 + numbers.compute)  # as bool, and added
    return mask if kernel == "sdpa" and is_padded else 0.0


def _head_bytes(config: Config, policy: ModelSize, numbers: Numbers, tokens: int) -> float:
    """Return the loss's tile, the counted hidden states, and the float32 gradients of states and head."""
    length = config.max_completion_length if stage_of(config).is_rl else config.data.max_length
    counted = min(tokens, config.per_device_train_batch_size * length)
    rows, columns = LOSS_TILE
    tile = min(counted, rows) * min(columns, policy.vocabulary) * numbers.compute
    states = counted * policy.hidden * (2 * numbers.compute + 4)
    head = 0 if config.model.lora.rank else policy.embedding * (4 + numbers.weight)
    return float(tile + states + head)


def _scoring(config: Config, strategy: str, models: Models, numbers: Numbers) -> Parts:
    """Return the larger of the passes of the frozen models and of the policy."""
    beside = settings_beside(config) or config.opd
    width = bytes_of(beside.dtype)
    students = models.students if beside.placement != "server" else ()
    frozen = Numbers(width, width, width)
    tokens = max(beside.tokens_per_batch, row_length(config))
    activations = max(
        tokens_per_pass(config) * forward_by_layer(models.policy, numbers),
        *(tokens * forward_by_layer(student, frozen) for student in students),
        0,
    )
    moved = max((width * s.parameters for s in students), default=0)
    parts: Parts = {"activations": activations, "LM head": SCORING_TILE * (4 + numbers.compute)}
    if beside.placement == "cpu_offload":
        parts[role_beside(config)] = moved
    if strategy in SHARDED:
        parts["gathered"] = numbers.weight * max(_live(size) for size in (models.policy, *students))
    elif numbers.is_autocast:
        parts["casts"] = numbers.compute * models.policy.parameters
    return parts
