"""The processes of a training as its environment names them: one alone, or one of several.

torchrun, srun and mpirun tell a process who it is in environment variables. This project's launcher decides
that itself, so it passes none of them on. train.py obeys a full set and refuses a part of one: torch would
wait without a word for processes that nobody has started.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

from rlt.errors import ConfigError

logger = logging.getLogger(__name__)

PROCESSES_VARIABLE = "RLT_NUM_PROCESSES"
"""Environment variable with the processes that a dry run of train.py is to check the settings for."""
_OWN_SET = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PROCESS_VARIABLES = re.compile(
    # torchrun; PET_* are its options, which Kubeflow sets.
    r"(LOCAL_|GROUP_|ROLE_|NODE_|CROSS_)?(RANK|WORLD_SIZE)|ROLE_NAME|CROSS_SIZE|LOCAL_SIZE"
    r"|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+|PET_\w+"
    # MPI and PMI. What tunes them (OMPI_MCA_*, PMIX_MCA_*, I_MPI_*, MV2_*) stays.
    r"|OMPI_(COMM_WORLD|UNIVERSE|APP_CTX|FIRST)_\w+|OMPI_(NUM_APP_CTX|COMMAND|ARGV|FILE_LOCATION)"
    r"|PMI2?_\w+|PMIX_(?!MCA_)\w+|MV2_COMM_WORLD_\w+|MPI_LOCAL(RANKID|NRANKS)|HYDI_\w+|PALS_\w+"
    r"|JSM_NAMESPACE_\w+|FLUX_TASK_(RANK|LOCAL_ID)"
    # Slurm: which task of a step this is. The job and what it owns stay (SLURM_JOB_*, SLURM_CPUS_*, …).
    r"|SLURM_(PROCID|LOCALID|NODEID|GTIDS|NTASKS|NPROCS|NTASKS_PER_\w+|TASKS_PER_NODE|TASK_PID)"
    r"|SLURM_(STEP_\w+|STEPID|LAUNCH_NODE_IPADDR|SRUN_COMM_\w+|PMI\w+|PMIX\w*)|SRUN_\w+"
    # vLLM's own data parallelism: a server with one of these waits for the others.
    r"|VLLM_DP_(RANK|RANK_LOCAL|SIZE|MASTER_IP|MASTER_PORT)"
)


class Manager(NamedTuple):
    """A program that starts processes, and the variables in which it tells each who it is."""

    name: str
    rank: str
    size: str
    local_rank: str


_MANAGERS = (
    Manager("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    Manager("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    Manager("mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    Manager("mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


@dataclass(frozen=True)
class World:
    """Which process of how many this one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = ""
    """Where the processes meet; empty for a process alone."""
    port: int = 0
    by: str = ""
    """Who has started them."""
    has_agent: bool = False
    """Whether a torchrun started all of them and holds their meeting point open."""


ALONE = World()


def process_variables(env: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that say which process of how many this is."""
    return sorted(name for name in env if _PROCESS_VARIABLES.fullmatch(name))


def forget_processes(env: MutableMapping[str, str], who: str) -> None:
    """Remove these variables and say so: `who` decides which processes there are."""
    if names := process_variables(env):
        logger.warning("not handed on, as %s decides which processes there are: %s", who, ", ".join(names))
    for name in names:
        del env[name]


def refuse_many_launchers(env: Mapping[str, str], script: str) -> None:
    """Raise ConfigError for a launcher that srun has started several times at once."""
    tasks = _tasks_of_step(env) if _is_step(env) else 1
    if tasks > 1:
        raise ConfigError(
            f"srun has started {script} {tasks} times (SLURM_PROCID={env.get('SLURM_PROCID', '?')}), and "
            f"each would train in the same folder. {script} starts the processes itself: run it once, with "
            f"`srun --ntasks=1 ./{script} …`, or without srun."
        )


def join_world(env: MutableMapping[str, str]) -> World:
    """Return who this process is, and leave torch's own variables for it in `env`, or none.

    Raises ConfigError for a part of a set, or numbers that do not fit together.
    """
    found = _read(env)
    for name in process_variables(env):
        if not (found.size > 1 or found.has_agent) or not _is_torchs(name):
            del env[name]  # accelerate and DeepSpeed would look at those of MPI, too
    if found.size > 1 or found.has_agent:
        values = (found.rank, found.local_rank, found.size, found.address, found.port)
        env.update(zip(_OWN_SET, map(str, values), strict=True))
    return found


def _is_torchs(name: str) -> bool:
    return not name.startswith(("OMPI_", "PMI", "MV2_", "MPI_", "SLURM_", "SRUN_", "VLLM_", "PET_", "HYDI_"))


def _read(env: Mapping[str, str]) -> World:
    if any(name in env for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")):
        return _read_torchs(env)
    for manager in _MANAGERS:
        if manager.name == "srun" and not _is_by_srun(env):
            continue
        size = _tasks_of_step(env) if manager.name == "srun" else _number(env, manager.size, least=1)
        if size is not None and size > 1:
            needed = (manager.rank, manager.size, manager.local_rank, "MASTER_ADDR", "MASTER_PORT")
            _require_all(env, needed, manager.name)
            return _world(env, manager, size)
    if left := [name for name in ("MASTER_ADDR", "MASTER_PORT") if env.get(name)]:
        logger.warning("%s without RANK and WORLD_SIZE: not used, this is one process", " and ".join(left))
    return ALONE


def _read_torchs(env: Mapping[str, str]) -> World:
    torchs = Manager("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    is_whole = all(env.get(name) for name in _OWN_SET)
    size = _number(env, "WORLD_SIZE", least=1)
    if not is_whole and size == 1 and not (_number(env, "RANK") or _number(env, "LOCAL_RANK")):
        logger.warning("WORLD_SIZE=1: this is one process, and the variables of torchrun are not used")
        return ALONE
    _require_all(env, _OWN_SET, "torchrun")
    assert size is not None
    return _world(env, torchs, size)


def _require_all(env: Mapping[str, str], names: tuple[str, ...], who: str) -> None:
    there = [f"{name}={env[name]}" for name in names if env.get(name)]
    missing = [name for name in names if not env.get(name)]
    if missing:
        remedy = f"`unset {' '.join(name for name in names if name in env)}` for one process alone"
        if who == "srun":
            address = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
            remedy += f", or `export MASTER_ADDR={address} MASTER_PORT=29500` before srun"
        raise ConfigError(
            f"the environment names one of several processes only in part: {' '.join(there)} without "
            f"{', '.join(missing)}. Use ./launch.sh, which sets them itself; or {remedy}; or start all "
            f"processes with {who}."
        )


def _world(env: Mapping[str, str], manager: Manager, size: int) -> World:
    rank, local_rank = _number(env, manager.rank), _number(env, manager.local_rank)
    port = _number(env, "MASTER_PORT", least=1)
    assert rank is not None
    assert local_rank is not None
    assert port is not None
    if rank >= size or local_rank > rank or port > 65535:
        raise ConfigError(
            f"{manager.rank}={rank}, {manager.local_rank}={local_rank}, {manager.size}={size} and "
            f"MASTER_PORT={port} do not fit together: processes count from 0, and ports end at 65535. "
            "Unset them, or use ./launch.sh, which sets them itself."
        )
    # Else the first process opens the meeting point: a torchrun without this shares none.
    has_agent = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    by = "torchrun" if "TORCHELASTIC_RUN_ID" in env else f"{manager.rank} and {manager.size}"
    return World(rank, size, local_rank, env["MASTER_ADDR"], port, by, has_agent)


def _number(env: Mapping[str, str], name: str, least: int = 0) -> int | None:
    value = env.get(name)
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise ConfigError(
            f"{name}={value} in the environment must be a whole number from {least} on: unset it."
        )
    return int(value)


def _is_by_srun(env: Mapping[str, str]) -> bool:
    """Whether srun has started this process.

    A batch script has SLURM_PROCID=0 and SLURM_NTASKS=N too, and is one process. What only a step has, or a
    number that only a step gives, or a meeting point distinguishes them.
    """
    if _is_step(env):
        return _tasks_of_step(env) > 1
    has_place = bool(env.get("MASTER_ADDR") and env.get("MASTER_PORT"))
    return "SLURM_PROCID" in env and (env["SLURM_PROCID"] != "0" or has_place)


def _is_step(env: Mapping[str, str]) -> bool:
    return any(name in env for name in ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS"))


def _tasks_of_step(env: Mapping[str, str]) -> int:
    """Return the tasks of the step that this process belongs to, 1 outside of any."""
    if "SLURM_STEP_NUM_TASKS" in env:
        return _number(env, "SLURM_STEP_NUM_TASKS", least=1) or 1
    return (_number(env, "SLURM_NTASKS", least=1) or 1) if "SLURM_PROCID" in env else 1
