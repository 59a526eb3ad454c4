"""How long a step takes, by a small model of the hardware.

Operations over a share of the peak, bytes over a share of the bandwidth (hardware.py). Saving, evaluation,
data and start-up are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlt.config.schema import Config, RewardSettings, stage_of
from rlt.launch.activations import Numbers, bytes_of
from rlt.launch.hardware import (
    BANDWIDTH_SHARE,
    COMPUTE_SHARE,
    DISK,
    EAGER_TICK,
    HOST_BANDWIDTH,
    HOST_LINK,
    LINK_SHARE,
    NETWORK,
    SERVER_TICK,
)
from rlt.launch.plan import Plan
from rlt.launch.server_memory import ServerMemory
from rlt.launch.training_memory import SHARDED, Models, trained_parameters
from rlt.models.size import ModelSize
from rlt.surroundings.gpus import GPU

_PROMPT_SHARE, _COMPLETION_SHARE = 1 / 16, 1 / 4
"""Of the limits: mean lengths where none are set."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the rows that a step is computed for. A row of fine-tuning is prompt and completion."""

    prompt: int
    completion: int
    """The mean."""
    longest: int
    """The longest completion: it is the last that the servers write."""


def assumed_lengths(config: Config) -> Lengths:
    """Return the means that are set, or else a part of the limits; one completion reaches its limit."""
    hardware = config.hardware
    is_rl = stage_of(config).is_rl
    limits = (
        (config.max_prompt_length, config.max_completion_length) if is_rl else (config.data.max_length,) * 2
    )
    prompt = hardware.mean_prompt_tokens or math.ceil(limits[0] * _PROMPT_SHARE)
    completion = hardware.mean_completion_tokens or math.ceil(limits[1] * _COMPLETION_SHARE)
    if is_rl:
        return Lengths(min(prompt, limits[0]), min(completion, limits[1]), limits[1])
    return Lengths(min(prompt, limits[0]), max(0, min(completion, limits[0] - prompt)), 0)


def longest_lengths(config: Config) -> Lengths:
    """Return every row at its limit."""
    if stage_of(config).is_rl:
        completion = config.max_completion_length
        return Lengths(config.max_prompt_length, completion, completion)
    return Lengths(config.data.max_length, 0, 0)


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the phases of a step, in their order."""

    config: Config
    plan: Plan
    models: Models
    gpu: GPU
    server: ServerMemory | None
    """None where the policy generates by itself, or servers elsewhere do."""
    flops: float
    """Operations a second that a GPU reaches."""

    def seconds(self, lengths: Lengths) -> dict[str, float]:
        """Return seconds by phase."""
        if not stage_of(self.config).is_rl:
            tokens = lengths.prompt + lengths.completion
            return {"update": self._update(tokens)}
        tokens = lengths.prompt + lengths.completion  # each pass is as wide as its own rows
        phases = {"generation": self._generation(lengths), "weights to servers": self._sync()}
        phases["reward"] = self._reward(lengths)
        phases["reference"] = self._forward(self.models.policy, tokens) if self.config.trainer.beta else 0.0
        phases["update"] = self._update(tokens)
        return {name: seconds for name, seconds in phases.items() if seconds}

    # ---- training -----------------------------------------------------------------------------------

    @property
    def _rows(self) -> float:
        """Rows of a step that one GPU works on."""
        return self.config.train_batch_size / self.plan.num_processes

    def _forward(self, size: ModelSize, tokens: int) -> float:
        """Return the time of a forward pass over the step's rows, of `tokens` each."""
        return self._rows * size.forward_flops(tokens, tokens / 2) / self.flops

    def _reward(self, lengths: Lengths) -> float:
        """Return the time for the log-probabilities of policy and students."""
        config, tokens = self.config, lengths.prompt + lengths.completion
        seconds = 0.0
        if stage_of(config).scores and config.reward.placement != "server":
            seconds += sum(self._forward(student, tokens) for student in self.models.students)
        if config.trainer_args.get("vllm_importance_sampling_correction", True):
            return seconds + self._forward(self.models.policy, tokens)
        if stage_of(config).scores and config.kl_penalty_reward_coeff and _reads_policy(config.reward):
            seconds += self._forward(self.models.policy, tokens)
        return seconds

    def _update(self, tokens: int) -> float:
        """Return the time of forward and backward passes over all micro-batches, and of the optimizer."""
        config, policy, processes = self.config, self.models.policy, self.plan.num_processes
        passes = 2 if config.model.lora.rank else 3  # adapters: no gradients of the weights
        passes += self._recomputes(tokens)
        compute = passes * self._forward(policy, tokens)
        micro_batches = self._rows / config.per_device_train_batch_size
        weights = Numbers.of(config, self.plan.strategy).weight * policy.parameters
        trained = trained_parameters(config, policy)
        if self.plan.strategy in SHARDED and processes > 1:
            # Each micro-batch gathers the weights twice and shares gradients once, while it computes.
            link = self.gpu.link if self.plan.num_machines == 1 else min(self.gpu.link, NETWORK)
            compute = max(compute, micro_batches * 3 * weights / (link * LINK_SHARE))
        if self.plan.strategy != "offload":
            return compute
        moved = (2 * weights + 2 * trained) / processes / HOST_LINK
        summed = 12 * trained / HOST_BANDWIDTH  # read, read, write
        return compute + micro_batches * (moved + summed) + 28 * trained / HOST_BANDWIDTH

    def _recomputes(self, tokens: int) -> bool:
        """Whether micro-batches of rows of so many tokens compute their activations anew."""
        trainer = self.config.trainer
        if trainer.gradient_checkpointing == "auto":
            return tokens * self.config.per_device_train_batch_size > (trainer.recompute_above or 0)
        return bool(trainer.gradient_checkpointing)

    # ---- generation ---------------------------------------------------------------------------------

    def _generation(self, lengths: Lengths) -> float:
        config = self.config
        if config.generation.backend == "transformers":
            batch = config.per_device_train_batch_size
            steps = lengths.completion if batch == 1 else lengths.longest
            context = lengths.prompt + steps / 2
            width = Numbers.of(config, self.plan.strategy).compute
            tick = self._decode(batch, context, width, 1) + EAGER_TICK
            return math.ceil(self._rows / batch) * (steps * tick + self._prefill(batch, lengths.prompt, 1))
        if self.server is None:
            return 0.0
        return self._served(self.server, lengths)

    def _served(self, server: ServerMemory, lengths: Lengths) -> float:
        """Return the time of the busiest server: many sequences at once, then the longest one alone."""
        config, parallel = self.config, self.config.generation.tensor_parallel
        share = math.ceil(config.train_batch_size / len(self.plan.servers))
        groups = math.ceil(share / config.num_generations)
        context = lengths.prompt + lengths.completion / 2
        room = int(server.pool / (server.kv_bytes * context))
        at_once = max(1, min(share, room, server.max_sequences))
        width = bytes_of(config.generation.dtype)
        tick = self._decode(at_once, context, width, parallel) + SERVER_TICK
        alone = self._decode(1, lengths.prompt + lengths.longest, width, parallel) + SERVER_TICK
        return (
            self._prefill(groups, lengths.prompt, parallel)  # the samples of a prompt share it
            + share * lengths.completion / at_once * tick
            + (lengths.longest - lengths.completion) * alone
        )

    def _decode(self, sequences: int, context: float, width: int, parallel: int) -> float:
        """Return the time of one token for each sequence: reading weights and keys, or computing."""
        policy = self.models.policy
        read = width * policy.parameters + sequences * context * policy.kv_bytes(width)
        computed = policy.forward_flops(sequences, context)
        return max(read / (self.gpu.bandwidth * BANDWIDTH_SHARE), computed / self.flops) / parallel

    def _prefill(self, prompts: int, tokens: int, parallel: int) -> float:
        return prompts * self.models.policy.forward_flops(tokens, tokens / 2) / self.flops / parallel

    def _sync(self) -> float:
        """Return the time in which the weights reach the servers."""
        config = self.config
        if config.generation.backend != "vllm":
            return 0.0
        weights = bytes_of(config.generation.dtype) * self.models.policy.parameters
        if config.generation.weight_sync == "checkpoint":
            return 2 * weights / DISK
        return weights / (self.gpu.link * LINK_SHARE)


def step_times(
    config: Config, plan: Plan, models: Models, gpu: GPU, server: ServerMemory | None
) -> StepTimes | None:
    """Return the times of a step, None on a GPU whose speed is not known."""
    if gpu.flops is None:
        return None
    return StepTimes(config, plan, models, gpu, server, gpu.flops * COMPUTE_SHARE)


def _reads_policy(reward: RewardSettings) -> bool:
    """Whether the divergence takes a forward pass of the policy."""
    return reward.teacher_logprobs == "policy" and reward.kl_estimator != "student_nll"
