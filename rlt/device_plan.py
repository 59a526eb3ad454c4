"""Who gets which device: GPUs split between generation and training, or process counts on a CPU.

Pure: rlt/devices.py says which GPUs there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlt.devices import MIG
from rlt.errors import ConfigError

STRATEGIES = ("zero3", "zero2", "zero1", "offload", "ddp")
"""Words a user may type; each names a file of cfgs/accelerate/."""


@dataclass(frozen=True)
class Plan:
    """What runs where. A machine without GPUs has empty device tuples and only counts.

    Example, eight GPUs halved, one per server: `Plan(servers=(("0",), …, ("3",)),
    training_gpus=("4", "5", "6", "7"), num_processes=4, strategy="zero3")`
    """

    servers: tuple[tuple[str, ...], ...]
    """One entry per vLLM server: the GPUs it owns."""
    training_gpus: tuple[str, ...]
    num_processes: int
    """Training processes, on all machines together."""
    strategy: str
    """A file of cfgs/accelerate/, without its suffix; or `single`, one process that nobody launches."""
    num_machines: int = 1
    """Each has as many processes, and the devices of this plan."""

    def __post_init__(self) -> None:
        """Refuse what no machine can do: CUDA shows a process one MIG instance at most."""
        for gpus in (*self.servers, self.training_gpus):
            if len(gpus) > 1 and any(name.startswith(MIG) for name in gpus):
                raise ConfigError(
                    f"{','.join(gpus)} cannot work together: a process sees one MIG instance at most; give "
                    "training one (`./launch.sh 1 …`), and each server (generation.tensor_parallel=1)."
                )

    @property
    def gpus(self) -> tuple[str, ...]:
        """All GPUs of this machine, each once: those of the servers, then those that train."""
        names = [*(name for server in self.servers for name in server), *self.training_gpus]
        return tuple(dict.fromkeys(names))

    @property
    def processes_here(self) -> int:
        """Training processes on each machine."""
        return self.num_processes // self.num_machines

    @property
    def num_gpus(self) -> int:
        """The GPUs of servers and training together, on all machines."""
        return sum(map(len, self.servers)) + len(self.training_gpus) * self.num_machines

    @property
    def on_cpu(self) -> bool:
        """Whether no GPU is used."""
        return not self.training_gpus


def plan_training(
    gpus: tuple[str, ...], count: int | None, word: str | None, has_deepspeed: bool, num_machines: int = 1
) -> Plan:
    """Return a plan that only trains: on `count` GPUs or CPU processes, by default on all GPUs.

    With several machines, on so many of each.
    """
    if gpus:
        _refuse_too_many(count, gpus, "training")
    chosen = gpus if count is None else gpus[:count]
    processes = num_machines * (len(chosen) if gpus else count or 1)
    strategy = choose_strategy(word, processes, bool(gpus), has_deepspeed)
    return Plan((), chosen, processes, strategy, num_machines)


def plan_generation(gpus: tuple[str, ...], count: int | None, tensor_parallel: int) -> Plan:
    """Return a plan that only generates: servers on `count` or all GPUs, and one process that asks them.

    On a CPU the number counts servers. GPUs that do not fill a server stay idle.
    """
    if not gpus:
        return Plan(((),) * (count or 1), (), 1, "single")
    _refuse_too_many(count, gpus, "generation")
    chosen = gpus if count is None else gpus[:count]
    if len(chosen) < tensor_parallel:
        raise ConfigError(
            f"{len(chosen)} GPU{'s' * (len(chosen) > 1)} cannot hold a server of "
            f"generation.tensor_parallel={tensor_parallel}: give more, or lower it."
        )
    last = len(chosen) - tensor_parallel
    servers = tuple(chosen[i : i + tensor_parallel] for i in range(0, last + 1, tensor_parallel))
    return Plan(servers, (), 1, "single")


def plan_with_servers(
    gpus: tuple[str, ...],
    generation: int | None,
    training: int | None,
    tensor_parallel: int,
    word: str | None,
    has_deepspeed: bool,
) -> Plan:
    """Return a plan with servers.

    On GPUs the numbers count GPUs; `generation` None halves the `training` (or all) GPUs, the odd one
    trains. On a CPU they count servers and training processes, one each by default.
    """
    if not gpus:
        processes = training or 1
        strategy = choose_strategy(word, processes, False, has_deepspeed)
        return Plan(((),) * (generation or 1), (), processes, strategy)
    if generation is None:
        generation, training = halve(gpus, training, tensor_parallel)
    training = len(gpus) - generation if training is None else training
    if generation + training > len(gpus):
        raise ConfigError(
            f"{generation} GPUs for generation and {training} for training are {generation + training}, but "
            f"{_seen(gpus)}: ask for fewer, or free more."
        )
    if generation % tensor_parallel:
        raise ConfigError(
            f"{generation} GPUs for generation cannot hold servers of "
            f"generation.tensor_parallel={tensor_parallel} GPUs each: make the number a multiple of it."
        )
    servers = tuple(gpus[i : i + tensor_parallel] for i in range(0, generation, tensor_parallel))
    strategy = choose_strategy(word, training, True, has_deepspeed)
    return Plan(servers, gpus[generation : generation + training], training, strategy)


def halve(gpus: tuple[str, ...], count: int | None, tensor_parallel: int) -> tuple[int, int]:
    """Return the numbers of generation and training GPUs when `count` (or all) are shared out."""
    _refuse_too_many(count, gpus, "generation and training")
    total = len(gpus) if count is None else count
    generation = total // 2 // tensor_parallel * tensor_parallel
    if generation == 0:
        raise ConfigError(
            f"{total} GPU{'s' * (total > 1)} cannot be shared between servers of {tensor_parallel} "
            "(generation.tensor_parallel) and training: give more, lower generation.tensor_parallel, name "
            "running servers with generation.servers=[ADDRESS], or generate in the trainer with "
            "generation.backend=transformers."
        )
    return generation, total - generation


def choose_strategy(word: str | None, num_processes: int, on_gpu: bool, has_deepspeed: bool) -> str:
    """Return the strategy for what the user typed, or for nothing typed: ZeRO-3.

    Without a word, a single CPU process has nothing to shard, and a machine without DeepSpeed cannot.
    """
    assert word is None or word in STRATEGIES, word
    if word is None:
        word = "zero3" if has_deepspeed and (on_gpu or num_processes > 1) else "ddp"
    if word != "ddp" and not has_deepspeed:
        raise ConfigError(
            f"`{word}` needs DeepSpeed, which is not installed: run `pip install -e '.[deepspeed]'`, "
            "or use `ddp`."
        )
    return "single" if word == "ddp" and num_processes == 1 else word


def _refuse_too_many(count: int | None, gpus: tuple[str, ...], purpose: str) -> None:
    if count is not None and count > len(gpus):
        raise ConfigError(
            f"{count} GPUs are asked for {purpose}, but {_seen(gpus)}: ask for fewer, or free more."
        )


def _seen(gpus: tuple[str, ...]) -> str:
    verb = "is" if len(gpus) == 1 else "are"
    return f"{len(gpus)} {verb} visible ({','.join(gpus)}; CUDA_VISIBLE_DEVICES decides)"
