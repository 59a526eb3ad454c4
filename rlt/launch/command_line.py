"""What is typed to a launcher, sorted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rlt.device_plan import STRATEGIES
from rlt.errors import ConfigError
from rlt.launch.machines import ALONE, Machines, take_options
from rlt.launch.rehearse import FLAG

USAGE = {
    "launch.sh": """\
usage: ./launch.sh [N] cfgs/run_cfg/NAME.yaml [WORD] [KEY=VALUE …] [--dry-run | --rehearse]

Train on N GPUs (default: all visible ones). teacher_rl, student_rl and student_opd take half of
them for vLLM servers, and collect_traces and evaluate, which train nothing, all of them, unless
generation.servers=[ADDRESS,…] names running ones or generation.backend=transformers needs none. On a
machine without GPUs, N counts training processes (default 1), beside one server; in collect_traces and
evaluate it counts servers.
""",
    "launch_with_server.sh": """\
usage: ./launch_with_server.sh GENERATION TRAINING cfgs/run_cfg/NAME.yaml [WORD] [KEY=VALUE …]
                               [--dry-run | --rehearse]

Start vLLM servers on GENERATION GPUs (generation.tensor_parallel of them each), train on TRAINING
GPUs. On a machine without GPUs the numbers count servers and training processes.
""",
}
USAGE_END = """
WORD        zero3 (default: shard everything), offload (ZeRO-3, weights and optimizer rest in host
            memory), zero2, zero1 (shard the optimizer only), ddp (shard nothing)
KEY=VALUE   any setting; `python train.py --help` lists them
--dry-run   check everything, print the configuration, a forecast of memory and time, and every command;
            start nothing
--rehearse  run the same configuration with tiny random models of the same families, two steps through
            every phase, on what this machine has (a CPU, one GPU), in OUTPUT_DIR/rehearsal
--num_machines N --machine_rank K --main_process_ip HOST [--main_process_port 29500]
            train on N machines, each with the same number of GPUs or processes: the same command on all of
            them, except for K, which counts from 0. HOST is machine 0, reached at this port and the next
            one. All machines share the file system of OUTPUT_DIR; servers are started apart
            (generation.servers)

Logs go to OUTPUT_DIR/logs. CUDA_VISIBLE_DEVICES decides which GPUs are visible.
"""


@dataclass(frozen=True)
class CommandLine:
    """What a user typed, sorted."""

    counts: tuple[int, ...]
    word: str | None
    overrides: tuple[str, ...]
    """Everything that is the configuration's business, in its order."""
    dry_run: bool
    rehearse: bool
    typed: str
    """The whole line, as run.json shows it."""
    machines: Machines = ALONE


def parse(script: str, words: Sequence[str]) -> CommandLine:
    """Return the sorted words; raises ConfigError for wrong numbers and contradicting words."""
    num_counts = 2 if script == "launch_with_server.sh" else 1
    typed = shlex.join([f"./{script}", *words])
    machines, words = take_options(words)
    leading: list[str] = []
    for word in words:
        if not word.lstrip("-").isdigit():
            break
        leading.append(word)
    rest = words[len(leading) :]
    if len(leading) > num_counts or (num_counts == 2 and len(leading) < 2):
        expected = "two numbers, GENERATION and TRAINING," if num_counts == 2 else "at most one number"
        got = " ".join(leading) or "none"
        raise ConfigError(f"{script} takes {expected} before the run file, got {got}.")
    if any(int(word) < 1 for word in leading):
        raise ConfigError(f"{script} counts GPUs or processes from 1 on, got {' '.join(leading)}.")
    chosen = [word for word in rest if word in STRATEGIES]
    if len(set(chosen)) > 1:
        both = " and ".join(chosen)
        raise ConfigError(f"{both} contradict each other: give one of {', '.join(STRATEGIES)}.")
    overrides = tuple(word for word in rest if word not in (*STRATEGIES, "--dry-run", FLAG))
    counts = tuple(int(word) for word in leading)
    word = chosen[0] if chosen else None
    return CommandLine(counts, word, overrides, "--dry-run" in rest, FLAG in rest, typed, machines)
