"""Who gets which device, for a configuration and what was typed."""

from __future__ import annotations

import importlib.util
import os

from rlt.config.schema import Config, stage_of
from rlt.device_plan import Plan, plan_generation, plan_training, plan_with_servers
from rlt.devices import visible_gpus
from rlt.errors import ConfigError
from rlt.launch.command_line import CommandLine


def plan_devices(config: Config, line: CommandLine, needs_servers: bool) -> Plan:
    """Return who gets which of the devices that this machine has."""
    stage = stage_of(config)
    computes = stage.model is not None or stage.scores
    gpus = visible_gpus(os.environ) if computes else ()
    has_deepspeed = importlib.util.find_spec("deepspeed") is not None
    count = line.counts[0] if line.counts else None
    if stage_of(config).only_generates:
        return _plan_generating(config, gpus, count, line.word, needs_servers)
    if not needs_servers:
        return plan_training(gpus, count, line.word, has_deepspeed, line.machines.count)
    generation, training = line.counts if len(line.counts) == 2 else (None, *(line.counts or (None,)))
    tensor_parallel = config.generation.tensor_parallel
    return plan_with_servers(gpus, generation, training, tensor_parallel, line.word, has_deepspeed)


def _plan_generating(
    config: Config, gpus: tuple[str, ...], count: int | None, word: str | None, needs_servers: bool
) -> Plan:
    if word is not None:
        raise ConfigError(f"`{word}` is a way to train, and {config.stage} trains nothing: remove it.")
    if needs_servers:
        return plan_generation(gpus, count, config.generation.tensor_parallel)
    if config.generation.backend == "vllm":
        return Plan((), (), 1, "single")  # somebody else's servers have the GPUs
    return plan_training(gpus, count, "ddp", has_deepspeed=False)
