"""Starting what was planned: servers, training, and their end; on one machine or as one of several."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlt.config.schema import Config, stage_of
from rlt.device_plan import Plan
from rlt.devices import VARIABLE as GPUS_VARIABLE
from rlt.errors import Paused, RLTError
from rlt.forecast.forecast import Forecast
from rlt.forecast.page import summary
from rlt.generation.log_reason import quote_end
from rlt.generation.sync_folder import remove_sync_folder, sync_folder
from rlt.generation.vllm_server import LOADING_VARIABLE
from rlt.launch.guard import the_guard
from rlt.launch.health import MotionWatch
from rlt.launch.machines import ALONE, Machines
from rlt.launch.meeting import meet
from rlt.launch.native_builds import remove_stale_locks
from rlt.launch.preflight import prepare_log
from rlt.launch.server import ServerPlan, ServerProcess, key_env, start_servers, wait_for_servers
from rlt.launch.signals import Stopped, save_on_signals, stop_on_signals
from rlt.launch.supervise import Limits, supervise
from rlt.launch.training import TrainingProcess
from rlt.rundir.processes import describe_process, forget_other_machines, write_processes
from rlt.rundir.run_record import (
    COMMAND_VARIABLE,
    explain_failure,
    finish_abandoned,
    one_line,
    read_run,
    source_digest,
)
from rlt.rundir.stop_file import LAUNCHED_VARIABLE, forget_request
from rlt.surroundings.clock import since_boot
from rlt.surroundings.process_name import name_process
from rlt.text import redact
from rlt.trainers.arguments import patience

logger = logging.getLogger("rlt.launch")
_WORK = {"collect_traces": "collecting", "evaluate": "evaluating"}


@dataclass(frozen=True)
class Launch:
    """Everything that will be started."""

    typed: str
    config: Config
    plan: Plan
    servers: list[ServerPlan]
    command: list[str]
    env: dict[str, str]
    log_path: Path
    forecast: Forecast | str | None
    """A reason where there can be none; None for stages that don't train."""
    disk: str | None = None
    machines: Machines = ALONE
    settings: tuple[str, ...] = ()
    """As they were typed."""
    missing: tuple[str, ...] = ()
    """What a dry run says of vLLM and compilers that are not installed here."""


def plan_line(launch: Launch) -> str:
    """Return one line that says who gets what."""
    plan = launch.plan
    where = "on the CPU" if plan.on_cpu else f"on GPU {','.join(plan.training_gpus)}"
    servers = ""
    if plan.servers:
        gpus = ",".join(gpu for server in plan.servers for gpu in server)
        servers = f"{len(plan.servers)} vLLM server(s) on {'GPU ' + gpus if gpus else 'the CPU'}; "
    strategy = f"{plan.num_processes} process(es), {plan.strategy}"
    if plan.num_machines > 1:
        where += f" of each of {plan.num_machines} machines (this is machine {launch.machines.rank})"
    if plan.strategy == "single":
        strategy = "one process"
    work = _WORK.get(launch.config.stage, "training")
    return f"# {launch.config.stage} -> {launch.config.output_dir}: {servers}{work} {where}: {strategy}"


def run_and_record(launch: Launch) -> int:
    """Return the training's exit code; write the end to run.json if the training could not."""
    status, reason = "interrupted", None
    try:
        code = run(launch)
        if code not in (0, Paused.exit_code):
            reason = f"the training ended with exit code {code}{quote_end(launch.log_path, code, lines=1)}"
        return code
    except RLTError as error:
        status, reason = "failed", one_line(error)
        raise
    except Stopped as stopped:
        reason = f"ended by {signal.Signals(stopped.number).name} to the launcher"
        raise
    finally:
        finish_abandoned(launch.config.output_dir, reason, status)


def run(launch: Launch) -> int:
    """Return the training's exit code, with servers around it; all processes of the run have ended then."""
    logger.info(plan_line(launch))
    for line in summary(launch.forecast) if isinstance(launch.forecast, Forecast) else ():
        logger.info("# %s", line)
    name_process("rlt:launch")
    stop_on_signals()
    if stage_of(launch.config).trains:
        if launch.machines.is_first:
            forget_request(Path(launch.config.output_dir))
        save_on_signals(launch.config.output_dir, sigterm=launch.config.trainer.save_on_sigterm)
    remove_stale_locks(os.environ)
    launched = since_boot()
    if launch.machines.count > 1:
        return run_beside_others(launch, launched)
    with ExitStack() as stack:
        clear_syncs_after(launch, stack)
        try:
            servers = start_servers(launch.servers, stack)
            env = {**launch.env, COMMAND_VARIABLE: launch.typed, LAUNCHED_VARIABLE: str(launched)}
            if servers:
                logger.info("logs: %s", launch.log_path.parent)
                env |= {LOADING_VARIABLE: "1", **key_env(launch.servers[0].key)}
            # The training reads its data while servers load, and what is wrong with that shows at once.
            begin_log(launch)
            training = TrainingProcess(launch.command, env, launch.log_path)
            stack.callback(training.stop)
            record_processes(launch, servers, training)
            if servers:
                wait_for_servers(servers, launch.config, unless=lambda: training.poll() is not None)
            generation, is_rl = launch.config.generation, stage_of(launch.config).is_rl
            limits = Limits(
                restarts=generation.max_restarts if is_rl else 0,
                together=syncs_in_a_group(launch),
                silence=generation.silence_timeout,
                patience=patience(generation) if is_rl else 0,
            )
            restarted = partial(record_processes, launch, servers, training)
            code = supervise(training, servers, limits, motion=motion_watch(launch), restarted=restarted)
            return exit_code(launch, code)
        except Stopped as stopped:
            logger.warning("%s: ending servers and training …", signal.Signals(stopped.number).name)
            raise


def begin_log(launch: Launch) -> None:
    """Write the command into the training's log, which a resumed run continues: reasons are sought below."""
    # A full disk costs lines of the log.
    with suppress(OSError), launch.log_path.open("a", encoding="utf-8") as log:
        log.write(f"$ {redact(launch.typed)}\n")


def clear_syncs_after(launch: Launch, stack: ExitStack) -> None:
    """See that the last weight sync is removed once all processes have ended, however they end.

    The training removes it itself at its end; one that is ended by a signal has no time for that.
    """
    if stage_of(launch.config).is_rl:
        folder = sync_folder(launch.config.output_dir, launch.config.generation.sync_dir)
        the_guard().clear(folder)  # if we are killed, too
        stack.callback(remove_sync_folder, folder)


def motion_watch(launch: Launch) -> MotionWatch:
    """Return what sees whether the training moves."""
    return MotionWatch(launch.config.output_dir, launch.log_path, launch.config.trainer.hang_timeout)


def exit_code(launch: Launch, code: int) -> int:
    """Return the launcher's exit code after its training's: that of a paused run is not 0."""
    may_pause = code == 0 and stage_of(launch.config).trains
    is_paused = may_pause and read_run(launch.config.output_dir)["status"] == "paused"
    return Paused.exit_code if is_paused else code


def run_beside_others(launch: Launch, launched: float) -> int:
    """Return the exit code of a training on several machines, when all processes here have ended."""
    machines, directory = launch.machines, launch.config.output_dir
    if machines.is_first:
        forget_other_machines(directory)
    same = {
        "processes on each machine": launch.plan.processes_here,
        "strategy": launch.plan.strategy,
        "settings": list(launch.settings),
        "code": source_digest()[:12],
    }
    with ExitStack() as stack:
        try:
            others = meet(machines, directory, same)
        except Stopped as stopped:
            logger.warning("%s: not all machines have come", signal.Signals(stopped.number).name)
            raise
        stack.callback(others.close)
        if machines.is_first:
            clear_syncs_after(launch, stack)
        try:
            prepare_log(directory, launch.log_path)
            env = {**launch.env, COMMAND_VARIABLE: launch.typed, LAUNCHED_VARIABLE: str(launched)}
            begin_log(launch)
            training = TrainingProcess(launch.command, env, launch.log_path)
            stack.callback(training.stop)
            record_processes(launch, [], training)
            code = others.watch(training, motion_watch(launch).check if machines.is_first else lambda: None)
            code = others.agree(exit_code(launch, code) if machines.is_first else code)
            if code == RLTError.exit_code and machines.is_first and (failed := others.failed()):
                explain_failure(directory, str(failed))
            return code
        except Stopped as stopped:
            name = signal.Signals(stopped.number).name
            others.tell(128 + stopped.number, f"ended by {name} to its launcher")
            logger.warning("%s: ending the training on %d machines …", name, machines.count)
            raise
        except RLTError as error:
            others.tell(error.exit_code, one_line(error))
            raise


def record_processes(launch: Launch, servers: Sequence[ServerProcess], training: TrainingProcess) -> None:
    """Write which processes run, for `python -m rlt.status`."""
    found = []
    for server in servers:
        gpus = server.plan.env.get(GPUS_VARIABLE)
        more = {"log": str(server.log_path), "address": server.address, "gpus": gpus}
        found.append(describe_process(server.child.name, server.child.pid, **more))
    name = _WORK.get(launch.config.stage, "training")
    found.append(describe_process(name, training.child.pid, log=str(launch.log_path)))
    write_processes(launch.config.output_dir, found, launch.machines.rank)


def syncs_in_a_group(launch: Launch) -> bool:
    """Whether weights go to all servers in one NCCL group, which none can leave or join alone."""
    kind = launch.config.generation.weight_sync
    return kind == "nccl" or (kind == "auto" and not launch.plan.on_cpu)
