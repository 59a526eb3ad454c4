"""How long a step takes, by a small model of the hardware.

Operations over a share of the peak, bytes over a share of the bandwidth (hardware.py). Saving, evaluation,
data and start-up are not counted.

Generation: a server writes all of its completions at the mean length, as many at once as fit, in turns; then
the longest one continues alone. With vLLM and generation.overlap the training GPUs score a turn's completions
(students, policy, reference) while the servers write the next turn or the longest one. Before the end of the
first turn there is nothing to score; the longest completion is scored after it has come. The update waits for
all of it: advantages are those of whole groups. Real lengths are spread, so short rows come before the first
turn's end and long ones after it.
Under ZeRO-3 rows are scored in units (rlt/trainers/reading.py), and the last one waits for the longest row.
The transformers back end writes and scores on the same GPUs, one after the other. Under offload
scoring waits too, since each unit would bring the weights from the host.
With generation.max_staleness=1 (rlt/trainers/generating.py) the servers write the next step's completions
while the training GPUs score what is left of this step's and update. The longer of the two is the step, since
what of the next step has come by then is scored early. Servers wait while they are given weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlt.config.beside import settings_beside
from rlt.config.judges import own_student, pays_likelihood
from rlt.config.lengths import rows_per_pass, tokens_with_gradients
from rlt.config.schema import Config, RewardSettings, stage_of
from rlt.device_plan import Plan
from rlt.forecast.activations import Numbers, bytes_of
from rlt.forecast.hardware import (
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
from rlt.forecast.server_memory import ServerMemory, sequence_bytes
from rlt.forecast.training_memory import SHARDED, Models, trained_parameters
from rlt.models.passes import BUSY_TOKENS, joined_tokens
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


BOTH = "generation and scoring"
"""What the phase is called in which completions are scored while others are written."""
AHEAD = "generation beside all else"
"""What the phase is called in which a step's completions are scored and learnt from while the next ones are
written."""


@dataclass(frozen=True)
class _Served:
    """Seconds of a server that writes its completions."""

    prompts: float
    turns: float
    """How often as many sequences as fit at once are written, at least 1."""
    turn: float
    """Of each."""
    longest: float
    """Of the longest completion alone, after the turns."""

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.prompts + self.turns * self.turn + self.longest


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
        """Return seconds by phase; they add up to the step."""
        tokens = lengths.prompt + lengths.completion  # each pass is as wide as its own rows
        if not stage_of(self.config).is_rl:
            return {"update": self._update(tokens)}
        generation, scoring = self._generation(lengths), self._scoring(tokens)
        if self._is_ahead:
            phases = {AHEAD: max(generation, self._learning(tokens)), "weights to servers": self._sync()}
            return {name: seconds for name, seconds in phases.items() if seconds}
        if self._overlaps:
            phases = {BOTH: generation + self._rest(lengths)}
        else:
            phases = {"generation": generation, **scoring}
        phases |= {"weights to servers": self._sync(), "update": self._update(tokens)}
        return {name: seconds for name, seconds in phases.items() if seconds}

    def hidden(self, lengths: Lengths) -> tuple[float, float] | None:
        """Return the seconds of all scoring, and those that pass while servers write; None where none can.

        A step ahead, those of scoring and update.
        """
        if not stage_of(self.config).is_rl or not (self._overlaps or self._is_ahead):
            return None
        if self._is_ahead:
            learning = self._learning(lengths.prompt + lengths.completion)
            return learning, min(learning, self._generation(lengths))
        scoring = sum(self._scoring(lengths.prompt + lengths.completion).values())
        return scoring, max(0.0, scoring - self._rest(lengths))

    @property
    def _overlaps(self) -> bool:
        """Whether completions are scored while others are written."""
        generation = self.config.generation
        one_by_one = generation.backend == "vllm" and self.plan.strategy != "offload"
        return one_by_one and self.server is not None and generation.overlap

    @property
    def _is_ahead(self) -> bool:
        """Whether the next step's completions are written while this one is learnt from."""
        generation = self.config.generation
        return generation.backend == "vllm" and self.server is not None and bool(generation.max_staleness)

    def _learning(self, tokens: int) -> float:
        """Return the time of all that training GPUs do in a step."""
        return sum(self._scoring(tokens).values()) + self._update(tokens)

    # ---- training -----------------------------------------------------------------------------------

    @property
    def _rows(self) -> float:
        """Rows of a step that one GPU works on."""
        return self.config.train_batch_size / self.plan.num_processes

    def _forward(self, size: ModelSize, tokens: int) -> float:
        """Return the time of a forward pass over the step's rows, of `tokens` each."""
        return self._rows * size.forward_flops(tokens, tokens / 2) / self.flops

    def _scoring(self, tokens: int) -> dict[str, float]:
        """Return the time of the passes without gradients, over the step's rows of `tokens` each."""
        config, reward = self.config, 0.0
        of_policy = self._forward(self.models.policy, tokens)
        if config.generation.backend == "vllm" and self.plan.strategy != "offload":
            # Each pass gathers the weights; of lengths that vary, a unit takes several.
            together = max(1.0, min(self._unit, BUSY_TOKENS / tokens))
            of_policy = max(of_policy, self._rows / together * self._gather)
        beside = settings_beside(config)
        if beside is not None and beside.placement != "server":
            reward += sum(self._forward(student, tokens) for student in self.models.students)
        if pays_likelihood(config) and own_student(config):
            reward += of_policy  # under another prompt than the one that it has written after
        if stage_of(config).is_judged and beside is None:
            reward += of_policy  # the policy itself, with the solution
        # The importance-sampling correction reads the same pass, or is made in the update.
        if stage_of(config).scores and _reads_policy(config.reward):
            reward += of_policy
        return {"reward": reward, "reference": of_policy if config.trainer.beta else 0.0}

    @property
    def _unit(self) -> int:
        """Rows that are read together, once all of them are there."""
        is_gathered = self.plan.strategy == "zero3" and self.plan.num_processes > 1
        return rows_per_pass(self.config) if is_gathered else 1

    @property
    def _weights(self) -> float:
        """Bytes of the policy's weights."""
        return Numbers.of(self.config, self.plan.strategy).weight * self.models.policy.parameters

    @property
    def _gather(self) -> float:
        """Time in which GPUs exchange their shares of the policy's weights, or of its gradients."""
        if self.plan.strategy not in SHARDED or self.plan.num_processes == 1:
            return 0.0
        link = self.gpu.link if self.plan.num_machines == 1 else min(self.gpu.link, NETWORK)
        return self._weights / (link * LINK_SHARE)

    @property
    def _from_host(self) -> float:
        """Time in which each GPU gets its share of the policy's weights from the host, where they rest."""
        return (self.plan.strategy == "offload") * self._weights / self.plan.num_processes / HOST_LINK

    def _update(self, tokens: int) -> float:
        """Return the time of forward and backward passes over all micro-batches, and of the optimizer."""
        config, policy = self.config, self.models.policy
        passes = 2 if config.model.lora.rank else 3  # adapters: no gradients of the weights
        passes += self._recomputes(tokens)
        compute = passes * self._forward(policy, tokens)
        together = float(config.per_device_train_batch_size)
        if stage_of(config).is_rl and config.trainer.loss_type != "bnpo":  # the loss is a sum over rows
            together = max(together, joined_tokens(tokens_with_gradients(config)) / tokens)
        micro_batches = self._rows / together
        trained = trained_parameters(config, policy)
        # Each micro-batch gathers the weights twice and shares gradients once, while it computes.
        compute = max(compute, micro_batches * 3 * self._gather)
        if self.plan.strategy != "offload":
            return compute
        moved = 2 * self._from_host + 2 * trained / self.plan.num_processes / HOST_LINK
        summed = 12 * trained / HOST_BANDWIDTH  # read, read, write
        return compute + micro_batches * (moved + summed) + 28 * trained / HOST_BANDWIDTH

    def _recomputes(self, tokens: int) -> bool:
        """Whether micro-batches of rows of so many tokens recompute their activations."""
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
        return self._served(self.server, lengths).seconds if self.server else 0.0

    def _served(self, server: ServerMemory, lengths: Lengths) -> _Served:
        """Return how the busiest server spends its time."""
        config, parallel = self.config, self.config.generation.tensor_parallel
        share = math.ceil(config.train_batch_size / len(self.plan.servers))
        groups = math.ceil(share / config.num_generations)
        context = lengths.prompt + lengths.completion / 2
        room = int(server.pool / sequence_bytes(config, self.models.policy, context))
        at_once = max(1, min(share, room, server.max_sequences))
        width = bytes_of(config.generation.dtype)
        tick = self._decode(at_once, context, width, parallel) + SERVER_TICK
        alone = self._decode(1, lengths.prompt + lengths.longest, width, parallel) + SERVER_TICK
        return _Served(
            prompts=self._prefill(groups, lengths.prompt, parallel),  # the samples of a prompt share it
            turns=share / at_once,
            turn=lengths.completion * tick,
            longest=(lengths.longest - lengths.completion) * alone,
        )

    def _rest(self, lengths: Lengths) -> float:
        """Return the time of scoring that is left when the last completion has come."""
        assert self.server is not None, "asked for where servers write"
        served = self._served(self.server, lengths)
        each = sum(self._scoring(lengths.prompt + lengths.completion).values()) / served.turns
        # Two stages in a row: the servers' turns, and the scoring of each.
        scored = served.prompts + served.turn + (served.turns - 1) * max(served.turn, each) + each
        # The last unit: the longest row, and others of its company.
        each_row = sum(self._scoring(lengths.prompt + lengths.completion).values()) / self._rows
        longest = sum(self._scoring(lengths.prompt + lengths.longest).values()) / self._rows
        return max(scored - served.seconds, longest + (min(self._unit, self._rows) - 1) * each_row)

    def _decode(self, sequences: int, context: float, width: int, parallel: int) -> float:
        """Return the time of one token for each sequence: reading weights and keys, or computing."""
        policy = self.models.policy
        read = width * policy.weights_read(sequences) + sequences * policy.kv_bytes(width, context)
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
