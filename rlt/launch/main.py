"""launch.sh and launch_with_server.sh: the command line, checks, plan and messages; run.py starts it.

The configuration is composed and checked, and the devices are counted, before anything starts. No file
of cfgs/ is written. Relative paths are those of the folder the user types in.
"""

from __future__ import annotations

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
    Plan,
)
from rlt.devices import refuse_unusable, usable_in_rehearsal
from rlt.errors import ConfigError, RLTError
from rlt.forecast.forecast import Forecast
from rlt.forecast.page import page
from rlt.launch.command import PROJECT, training_command, training_env
from rlt.launch.command_line import USAGE, USAGE_END, CommandLine, parse
from rlt.launch.devices import plan_devices
from rlt.launch.look import forecast, look_at_compilers, look_at_disk, look_at_vllm
from rlt.launch.machines import Machines, check_machines
from rlt.launch.ports import free_ports
from rlt.launch.preflight import check_local_data, prepare_directory
from rlt.launch.rehearse import refuse_rehearsal, rehearsal, results
from rlt.launch.run import Launch, plan_line, run, run_and_record
from rlt.launch.server import ServerPlan, plan_servers, run_key
from rlt.launch.signals import Stopped
from rlt.launch.versions import untested_versions
from rlt.rundir.origin import require_same_origin
from rlt.rundir.run_record import COMMAND_VARIABLE
from rlt.surroundings.place import settle
from rlt.surroundings.world import PROCESSES_VARIABLE, forget_processes, refuse_many_launchers

logger = logging.getLogger("rlt.launch")


def main(argv: Sequence[str]) -> int:
    """Return the exit code of a launcher: `argv` is its name, then what the user typed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("rlt").setLevel(logging.INFO)
    script, words = argv[0], list(argv[1:])
    try:
        settle(os.environ)
        if not words or {"-h", "--help"} & set(words):
            sys.stdout.write(USAGE[script] + USAGE_END)
            return 0 if words else ConfigError.exit_code
        line = parse(script, words)
        if line.machines.count == 1:  # else their numbers distinguish them
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


def become_pipeline(line: CommandLine) -> NoReturn:
    """Become train.py, which starts a launcher for each step."""
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
        tuple(sentence for sentence in missing if sentence),
    )


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
        for made_small in rehearsed.report:
            logger.info("#   %s", made_small)
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
