"""launch.sh and launch_with_server.sh: what is typed, checked, planned and told; run.py starts it.

The configuration is composed and checked, and the devices are counted, before anything starts. No file
of cfgs/ is written. Relative paths are those of the folder the user types in.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from rlt.config.attention import refuse_on_cpu
from rlt.config.compose import compose
from rlt.config.overrides import read
from rlt.config.resolve import resolve
from rlt.config.save import to_yaml
from rlt.config.schema import Config, stage_of
from rlt.config.server_key import VARIABLE
from rlt.config.typed import chosen_settings
from rlt.config.validate import validate
from rlt.data.own_layout import adopt_layouts
from rlt.device_plan import (
    STRATEGIES,
    Plan,
    plan_generation,
    plan_training,
    plan_with_servers,
)
from rlt.devices import MIG, refuse_unusable, usable_in_rehearsal, visible_gpus
from rlt.errors import ConfigError, RLTError
from rlt.forecast.disk import check_disk, disk_needs
from rlt.forecast.forecast import Forecast, count_steps, make_forecast, size_of_policy
from rlt.forecast.page import page
from rlt.launch.command import PROJECT, training_command, training_env
from rlt.launch.compilers import check_compilers
from rlt.launch.machines import ALONE, Machines, check_machines, take_options
from rlt.launch.ports import free_ports
from rlt.launch.preflight import check_local_data, prepare_directory
from rlt.launch.rehearse import FLAG, refuse_rehearsal, rehearsal, results
from rlt.launch.run import Launch, plan_line, run, run_and_record
from rlt.launch.server import ServerPlan, plan_servers, run_key
from rlt.launch.signals import Stopped
from rlt.launch.versions import untested_versions
from rlt.models.size import NoForecast
from rlt.rundir.origin import require_same_origin
from rlt.rundir.run_record import COMMAND_VARIABLE
from rlt.surroundings.place import settle
from rlt.surroundings.world import PROCESSES_VARIABLE, forget_processes, refuse_many_launchers

logger = logging.getLogger("rlt.launch")

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
_USAGE_END = """
WORD        zero3 (default: shard everything), offload (ZeRO-3, weights and optimizer rest in host
            memory), zero2, zero1 (shard the optimizer only), ddp (shard nothing)
KEY=VALUE   any setting; `python train.py --help` lists them
--dry-run   check everything, print the configuration, a forecast of memory and time, and every command;
            start nothing
--rehearse  run the same configuration with tiny random models of the same families, two steps through
            every phase, on what this machine has (a CPU, one GPU), in OUTPUT_DIR/rehearsal
--num_machines N --machine_rank K --main_process_ip HOST [--main_process_port 29500]
            train on N machines, each with as many GPUs or processes: the same command on all of them, but for
            K, which counts from 0. HOST is machine 0, reached at this port and the next one. All machines
            share the file system of OUTPUT_DIR; servers are started apart (generation.servers)

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


def main(argv: Sequence[str]) -> int:
    """Return the exit code of a launcher: `argv` is its name, then what the user typed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rlt").setLevel(logging.INFO)
    script, words = argv[0], list(argv[1:])
    try:
        settle(os.environ)
        if not words or {"-h", "--help"} & set(words):
            sys.stdout.write(USAGE[script] + _USAGE_END)
            return 0 if words else ConfigError.exit_code
        line = parse(script, words)
        if line.machines.count == 1:  # else their numbers tell them apart
            refuse_many_launchers(os.environ, script)
        forget_processes(os.environ, script)
        for untested in untested_versions():
            logger.warning("%s", untested)
        if line.rehearse:
            return rehearse(script, line)
        launch = prepare(script, line)
        if line.dry_run:
            sys.stdout.write(describe(launch))
            return check_text(launch)
        refuse_unusable(launch.plan.gpus)
        if not launch.machines.is_first:
            return run(launch)  # machine 0 holds the run directory
        prepare_directory(launch.config.output_dir, launch.log_path)
        return run_and_record(launch)
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Stopped as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:  # before anything was started
        sys.stderr.write("interrupted\n")
        return 128 + signal.SIGINT


def check_text(launch: Launch) -> int:
    """Return the exit code of a look at tokenizers and rows, as the training would read them."""
    if not stage_of(launch.config).trains:
        return 0
    sys.stdout.flush()
    train = launch.command[launch.command.index(str(PROJECT / "train.py")) :]
    env = {**os.environ, PROCESSES_VARIABLE: str(launch.plan.num_processes)}
    command = [sys.executable, *train, "--dry-run"]
    return subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False).returncode


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


def become_pipeline(line: CommandLine) -> NoReturn:
    """Go on as train.py, which starts a launcher for each step."""
    given = " ".join([*map(str, line.counts), *filter(None, [line.word])])
    if given:
        key, value = ("gpus", given) if line.counts else ("strategy", line.word)
        raise ConfigError(
            f"`{given}` is for one stage, and a pipeline has several: write pipeline.every.{key}={value}, or "
            f"pipeline.steps.STEP.{key}={value} for one of them."
        )
    if line.machines.count > 1:
        raise ConfigError("--num_machines is for one stage, and a pipeline has several: launch each.")
    words = [str(PROJECT / "train.py"), *line.overrides, *(["--dry-run"] if line.dry_run else [])]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *words], {**os.environ, COMMAND_VARIABLE: line.typed})


@dataclass(frozen=True)
class Checked:
    """What a command line whose settings and devices fit together comes to."""

    plan: Plan
    needs_servers: bool


def check(script: str, line: CommandLine, config: Config) -> Checked:
    """Return who gets which device, with every check of the resolved `config` done; no data is read."""
    if config.stage == "infer":
        raise ConfigError("infer needs no launcher: run `python train.py run_cfg=infer …`.")
    generates = stage_of(config).generates and config.generation.backend == "vllm"
    needs_servers = generates and not config.generation.servers
    check_machines(script, line.machines, config, needs_servers=needs_servers)
    if script == "launch_with_server.sh" and (not needs_servers or stage_of(config).only_generates):
        raise ConfigError(_needs_no_server(config))
    plan = plan_devices(config, line, needs_servers)
    validate(config, num_processes=plan.num_processes, servers_follow=needs_servers, rehearsed=line.rehearse)
    if plan.on_cpu and not (line.dry_run or line.rehearse):
        refuse_on_cpu(config)
    require_same_origin(config)
    return Checked(plan, needs_servers)


def compose_settled(line: CommandLine, *, launched: bool = False) -> Config:
    """Return the resolved configuration of a command line, with its models' own prompts."""
    config = resolve(compose(line.overrides, launched=launched))
    return adopt_layouts(config, chosen_settings(read(line.overrides)), tell=False)


def prepare(script: str, line: CommandLine) -> Launch:
    """Return what would be started, with every check done that needs no model."""
    config = compose_settled(line)
    if config.stage == "pipeline":
        become_pipeline(line)
    checked = check(script, line, config)
    if line.dry_run and not stage_of(config).trains:  # else train.py says whose prompts are taken
        adopt_layouts(config, chosen_settings(read(line.overrides)))
    return arrange(line, config, checked)


def arrange(line: CommandLine, config: Config, checked: Checked) -> Launch:
    """Return what would be started for a checked configuration; its data is read and checked here."""
    plan = checked.plan
    run_directory = Path(config.output_dir)
    servers: list[ServerPlan] = []
    overrides = list(line.overrides)
    missing: list[str | None] = []
    if checked.needs_servers:
        missing.append(look_at_vllm(refuse=not line.dry_run))
        servers = plan_servers(config, plan.servers, run_directory, key=run_key(config))
        overrides.append(f"generation.servers=[{','.join(server.address for server in servers)}]")
    missing.append(look_at_compilers(config, plan, refuse=not line.dry_run))
    num_rows = check_local_data(config)
    machines = line.machines
    if machines.count == 1:
        (port,) = free_ports(1, besides=[server.port for server in servers])
        machines = Machines(port=port)
    ahead = forecast(config, plan, num_rows)
    if isinstance(ahead, Forecast) and config.trainer.gradient_checkpointing == "auto":
        overrides.append(f"trainer.recompute_above={ahead.config.trainer.recompute_above}")
    command = training_command(config, plan, overrides, machines)
    log_path = run_directory / "logs" / ("train.log" if machines.is_first else f"train.{machines.rank}.log")
    disk = look_at_disk(config, plan, num_rows, refuse=not line.dry_run)
    return Launch(
        line.typed,
        config,
        plan,
        servers,
        command,
        training_env(plan),
        log_path,
        ahead,
        disk,
        machines,
        line.overrides,
        tuple(said for said in missing if said),
    )


def look_at_vllm(*, refuse: bool) -> str | None:
    """Return a line where servers are planned and vLLM is not installed, else None.

    Raises ConfigError for it; a dry run, which may be for another machine, only says so.
    """
    if importlib.util.find_spec("vllm") is not None:
        return None
    said = (
        "generation.backend=vllm needs vLLM, which is not installed: run scripts/setup.sh, or generate in "
        "the trainer with generation.backend=transformers."
    )
    if refuse:
        raise ConfigError(said)
    return f"servers: {said}"


def look_at_compilers(config: Config, plan: Plan, *, refuse: bool) -> str | None:
    """Return a line on a compiler that is missing, None where all are there.

    Raises ConfigError for it; a dry run, which may be for another machine, only says so.
    """
    try:
        check_compilers(config, plan, os.environ)
    except ConfigError as error:
        if refuse:
            raise
        return f"compilers: {error}"
    return None


def look_at_disk(config: Config, plan: Plan, num_rows: int | None, *, refuse: bool) -> str | None:
    """Return a line on what a training will write, None where that is not known.

    Raises ConfigError where it does not fit; a dry run, which may be for another machine, only says so.
    """
    if not stage_of(config).trains or config.model_name_or_path is None:
        return None
    try:
        needs = disk_needs(config, plan.strategy, size_of_policy(config), count_steps(config, num_rows))
        return check_disk(config, needs)
    except NoForecast:
        return None
    except ConfigError as error:
        if refuse:
            raise
        return f"disk: {error}"


def rehearse(script: str, line: CommandLine) -> int:
    """Return the exit code of a rehearsal, which goes the way of a run, in a directory of its own."""
    began = time.monotonic()
    config = compose_settled(line)
    refuse_rehearsal(config, dry_run=line.dry_run, num_machines=line.machines.count)
    real = check(script, line, config)
    check_local_data(config)
    present, unusable = usable_in_rehearsal()
    if unusable:
        logger.warning("rehearsed without GPUs: %s", unusable)
    with rehearsal(config, real.plan, present) as rehearsed:
        logger.info("# rehearsal of %s -> %s", config.stage, config.output_dir)
        for told in rehearsed.told:
            logger.info("#   %s", told)
        small = replace(line, overrides=(*line.overrides, *rehearsed.words))
        settings = compose_settled(small, launched=True)
        plan = rehearsed.plan
        validate(settings, num_processes=plan.num_processes, servers_follow=bool(plan.servers))
        launch = replace(arrange(small, settings, Checked(plan, bool(plan.servers))), forecast=None)
        prepare_directory(launch.config.output_dir, launch.log_path)
        try:
            code = run_and_record(launch)
        except RLTError as error:
            raise type(error)(f"in the rehearsal: {error}") from error
        if code:
            logger.error("that was the rehearsal; the run itself was not started: %s", rehearsed.directory)
            return code
        logger.info("%s", results(rehearsed, config, time.monotonic() - began, line.typed))
    return 0


def forecast(config: Config, plan: Plan, num_rows: int | None) -> Forecast | str | None:
    """Return what the run will need, or why that is not known; None for stages that don't train."""
    if not stage_of(config).trains:
        return None
    if plan.on_cpu:
        return (
            "no forecast: it is made for GPUs, and none are used; CUDA_VISIBLE_DEVICES=0,1,2,3 before the "
            "command plans for four that are elsewhere, of the kind hardware.gpu"
        )
    if config.hardware.gpu == "auto" and plan.training_gpus[0].startswith(MIG):
        return "no forecast: a MIG instance is a part of a GPU; hardware.gpu=KIND plans for a whole one"
    try:
        return make_forecast(config, plan, num_rows)
    except NoForecast as reason:
        return f"no forecast of memory and time: {reason}"


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
        raise ConfigError(f"`{word}` is a way to train, and {config.stage} trains nothing: leave it out.")
    if needs_servers:
        return plan_generation(gpus, count, config.generation.tensor_parallel)
    if config.generation.backend == "vllm":
        return Plan((), (), 1, "single")  # somebody else's servers have the GPUs
    return plan_training(gpus, count, "ddp", has_deepspeed=False)


def describe(launch: Launch) -> str:
    """Return the resolved configuration, then every command as a line for a shell."""
    ahead = page(launch.forecast) if isinstance(launch.forecast, Forecast) else [launch.forecast or ""]
    ahead += [launch.disk or "", *launch.missing]
    lines = [to_yaml(launch.config), plan_line(launch), *(f"# {line}" for line in ahead if line)]
    if any(server.key for server in launch.servers):
        lines.append(f"# in every command's environment: {VARIABLE}, the key that the servers demand")
    for server in launch.servers:
        lines += [f"# server {server.index}: {server.address}", str(server)]
    env = [f"{key}={shlex.quote(value)}" for key, value in launch.env.items()]
    lines += [f"# training; log: {launch.log_path}", " ".join([*env, shlex.join(launch.command)])]
    return "\n".join(lines) + "\n"


def _needs_no_server(config: Config) -> str:
    if stage_of(config).only_generates:
        return (
            f"launch_with_server.sh shares GPUs out between generation and training, but {config.stage} "
            "trains nothing: use launch.sh."
        )
    if not stage_of(config).is_rl:
        reason = f"stage {config.stage} generates nothing"
    elif config.generation.servers:
        reason = "generation.servers names running servers"
    else:
        reason = "generation.backend=transformers generates in the trainer"
    return f"launch_with_server.sh would start servers, but {reason}: use launch.sh."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
