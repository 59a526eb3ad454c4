"""processes.json: the processes of a launched run and their logs, for people who look (`rlt.status`).

A process is known by its id and the time of its start, since ids are given again.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from rlt.io import write_json
from rlt.surroundings.clock import start_of
from rlt.text import timestamp

NAME = "processes.json"
OF_OTHERS = "processes.machine-*.json"


def describe_process(name: str, pid: int, **more: Any) -> dict[str, Any]:
    """Return what is written of a process of this machine."""
    return {"name": name, "pid": pid, **_birth(pid), **more}


def _birth(pid: int) -> dict[str, int | float | None]:
    """Return when a process started, in ticks since boot; macOS keeps a time that is never moved instead."""
    try:
        if (ticks := start_of(pid)) is not None:
            return {"ticks": ticks}
        return {"born": psutil.Process(pid).create_time()}
    except (psutil.Error, ProcessLookupError):
        return {"born": None}


def write_processes(directory: str | Path, processes: Sequence[Mapping[str, Any]], machine: int = 0) -> None:
    """Write what this launcher has started; a full disk must not end a run.

    On several machines each has its file, and machine 0 that of a run on one.
    """
    record = {
        "host": socket.gethostname(),
        "machine": machine,
        "written": timestamp(),
        "launcher": describe_process("launcher", os.getpid()),
        "processes": processes,
    }
    with suppress(OSError):
        write_json(Path(directory) / (NAME if machine == 0 else OF_OTHERS.replace("*", str(machine))), record)


def gpus_of_servers(directory: Path) -> dict[str, str]:
    """Return the numbers of the GPUs of each server that the run's launcher has started, by its address."""
    try:
        processes = json.loads((directory / NAME).read_text(encoding="utf-8"))["processes"]
    except (OSError, ValueError, KeyError):  # started without our launcher
        return {}
    return {p["address"]: p["gpus"] for p in processes if p.get("address") and p.get("gpus")}


def forget_other_machines(directory: str | Path) -> None:
    """Remove what the other machines of an earlier run have written."""
    for file in Path(directory).glob(OF_OTHERS):
        with suppress(OSError):
            file.unlink()


def is_alive(process: Mapping[str, Any]) -> bool:
    """Return whether a described process of this machine still runs."""
    try:
        found = psutil.Process(process["pid"])
        born = process.get("born")
        if "ticks" in process:
            is_same = start_of(process["pid"]) == process["ticks"]
        else:
            is_same = born is None or abs(found.create_time() - born) < 1.0
        return is_same and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False
