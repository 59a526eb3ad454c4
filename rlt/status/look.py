"""What a run is doing, as its files and the processes of this machine show it. Loads no heavy library.

Reads run.json, now.json, metrics.jsonl, processes.json, config.yaml, pipeline.json and the logs; changes
nothing.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import yaml

from rlt.errors import DataError
from rlt.io import files_below, read_tail
from rlt.rundir.now import NAME as NOW
from rlt.rundir.now import NowJson, seconds_in_phase
from rlt.rundir.processes import NAME as PROCESSES
from rlt.rundir.processes import OF_OTHERS, is_alive
from rlt.rundir.run_record import NAME as RUN
from rlt.rundir.run_record import read_run
from rlt.text import redact, without_colour

PIPELINE = "pipeline.json"
METRICS = "metrics.jsonl"
_TAIL_BYTES = 65536
_HEALTH_TIMEOUT = 0.4
_RECENT_STEPS = 10
"""The rate is that of so many steps."""
_DEPTH = 3
"""How far below a folder runs are looked for."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SERVERS = ("generation.servers", "reward.servers", "reward.answers.servers")

Status = dict[str, Any]


def find_runs(folder: Path) -> list[Path]:
    """Return the folder, if it is a run directory, or else those below it, the latest first."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give a run directory, or a folder that holds some")
    if _is_run(folder):
        return [folder]
    files = files_below(folder, depth=_DEPTH)
    found = {path.parent for path in files if path.name in (RUN, PIPELINE, PROCESSES)}
    if not found:
        raise DataError(f"{folder} holds no run: no {RUN}, {PIPELINE} or {PROCESSES} in it or below")
    pipelines = {path for path in found if (path / PIPELINE).is_file()}
    return sorted({path for path in found if path.parent not in pipelines}, key=_changed, reverse=True)


def look(directory: Path) -> Status:
    """Return what the run in a directory is doing; None means unknown."""
    if (directory / PIPELINE).is_file():
        return _look_at_pipeline(directory)
    run = read_run(directory) if (directory / RUN).is_file() else {}
    launch = _read_json(directory / PROCESSES)
    is_here = launch.get("host") == socket.gethostname()
    launcher_lives = is_here and is_alive(launch["launcher"])
    state = _state(run, launch, launcher_lives, is_here)
    is_on = state in ("running", "starting")
    now = _read_json(directory / NOW) if state != "finished" else {}
    rows = training_rows(directory / METRICS, _TAIL_BYTES)[-_RECENT_STEPS - 1 :]
    step = rows[-1]["step"] if rows else None
    pace = _pace(rows)
    of = now.get("of")
    doing = None
    if now and state != "starting":
        doing = {"phase": now["phase"], "seconds": seconds_in_phase(cast(NowJson, now))}
    status: Status = {
        "directory": str(directory),
        "stage": run.get("stage"),
        "state": state,
        "error": run.get("error") if not is_on else None,
        "command": run.get("command"),
        "seconds": _between(run.get("started"), None) if state == "running" else run.get("seconds"),
        "doing": doing,
        "step": step,
        "of": of,
        "seconds_per_step": pace,
        "seconds_left": _left(pace, rows, of, directory) if state == "running" else None,
        "metrics": {k: v for k, v in rows[-1].items() if k not in ("step", "epoch", "time")} if rows else {},
        "processes": _processes(directory, run, launch) if is_on else [],
        "servers": [],
    }
    if is_on:
        status["servers"] = _servers(directory, status["processes"])
    return status


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RUN, PIPELINE, PROCESSES))


def _changed(directory: Path) -> float:
    files = (directory / name for name in (RUN, NOW, PIPELINE, PROCESSES, METRICS))
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _look_at_pipeline(directory: Path) -> Status:
    record = _read_json(directory / PIPELINE)
    steps = record.get("steps", [])
    status: Status = {
        "directory": str(directory),
        "stage": "pipeline",
        "state": record.get("status"),
        "command": record.get("command"),
        "seconds": _between(record.get("started"), record.get("ended")),
        "steps": steps,
    }
    running = [step for step in steps if step["status"] == "running"]
    for step in running:
        place = Path(step["directory"])
        if not place.is_dir():  # given relative to another folder than ours
            place = directory / place.name
        if _is_run(place):
            step["now"] = look(place)
    lives = any(step.get("now", {}).get("state") in ("running", "starting") for step in running)
    if record.get("status") == "running" and not lives and not _is_held(directory):
        status["state"] = "interrupted"
    return status


def _is_held(directory: Path) -> bool:
    """Return whether a process of this machine has the pipeline's lock open."""
    lock = directory / ".lock"
    try:
        inode = f":{lock.stat().st_ino} "
        return any(inode in line for line in Path("/proc/locks").read_text().splitlines())
    except OSError:  # no lock, or not Linux: then the record's word counts
        return lock.exists()


def _state(run: Mapping[str, Any], launch: Status, launcher_lives: bool, is_here: bool) -> str:
    """Return starting, running, finished, failed or interrupted."""
    # A launcher that was called after the run was recorded has not got as far as to its own.
    is_earlier = bool(launch) and run.get("started", "") < launch["written"] and run.get("ended")
    if launcher_lives and (not run or is_earlier) and any(map(is_alive, launch["processes"])):
        return "starting"
    if run:
        return str(run.get("status"))
    return "interrupted" if is_here else "starting"


def _processes(directory: Path, run: Mapping[str, Any], launch: Status) -> list[Status]:
    """Return the run's processes: those of the launchers, or the one that run.json names.

    Whether one of another machine is alive is not known: None.
    """
    others = [_read_json(file) for file in sorted(directory.glob(OF_OTHERS))]
    found = [
        (record, process)
        for record in (launch, *others)
        if record
        for process in (record["launcher"], *record["processes"])
    ]
    process = run.get("process", {})
    if not found and process:
        found = [(process, {"name": run.get("stage"), "pid": process["pid"]})]
    status = []
    for record, described in found:
        log = Path(described["log"]) if described.get("log") else None
        if log and not log.is_file():
            log = directory / "logs" / log.name  # the folder was given relative to another one
        is_here = record.get("host") == socket.gethostname()
        alive = is_alive(described) if is_here else None
        status.append(
            {
                **{key: described.get(key) for key in ("name", "pid", "address")},
                "host": record.get("host"),
                "machine": record.get("machine", 0),
                "alive": alive,
                "log": str(log) if log else None,
                "last_line": _last_line(log) if log else None,
                "children": _children(described["pid"]) if alive and described["name"] != "launcher" else [],
            }
        )
    return status


def _children(pid: int) -> list[Status]:
    """Return the processes below one that have a name of their own: ranks, engines."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                name = child.name()
                if name.startswith(("rlt:", "VLLM")):
                    found.append({"name": name, "pid": child.pid})
    return found


def _servers(directory: Path, processes: Iterable[Status]) -> list[Status]:
    """Return every server of the run, started or only named, and whether it answers."""
    addresses = dict.fromkeys(p["address"] for p in processes if p["address"])
    addresses |= dict.fromkeys(_named_servers(directory / "config.yaml"))
    with ThreadPoolExecutor(max_workers=max(len(addresses), 1)) as pool:
        healths = pool.map(_health, addresses)
        return [{"address": a, "health": health} for a, health in zip(addresses, healths, strict=True)]


def _health(address: str) -> str:
    """Return `healthy`, or what a server does instead."""
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_HEALTH_TIMEOUT)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        status = connection.getresponse().status
        return "healthy" if status == 200 else f"answers {status}"
    except TimeoutError:
        return f"no answer within {_HEALTH_TIMEOUT:g} s"
    except (OSError, http.client.HTTPException) as error:
        return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    finally:
        connection.close()


def _named_servers(path: Path) -> list[str]:
    """Return the servers that a saved configuration names; none where it cannot be read."""
    found: list[str] = []
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return []
    for setting in _SERVERS:
        value = config
        for part in setting.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found += value if isinstance(value, list) else []
    return found


def training_rows(path: Path, tail_bytes: int | None = None) -> list[Status]:
    """Return the lines of training metrics, oldest first, of the file's end alone if `tail_bytes` says so.

    A line that is still being written is skipped.
    """
    rows = []
    for line in read_tail(path, tail_bytes).split("\n")[:-1]:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and {"step", "time", "loss"} <= row.keys():
                rows.append(row)
    return rows


def _pace(rows: list[Status]) -> float | None:
    """Return seconds per step over the last steps."""
    if len(rows) < 2 or rows[-1]["step"] <= rows[0]["step"]:
        return None
    return (rows[-1]["time"] - rows[0]["time"]) / (rows[-1]["step"] - rows[0]["step"])


def _left(pace: float | None, rows: list[Status], of: int | None, directory: Path) -> float | None:
    """Return the seconds that are left, less those since the last logged step."""
    if pace is None or of is None:
        return None
    since = time.time() - (directory / METRICS).stat().st_mtime
    return round(max(pace * (of - rows[-1]["step"]) - min(since, pace), 0.0), 1)


def _last_line(path: Path) -> str | None:
    """Return the last line of a log, without colours and secrets, as a terminal would show it."""
    lines = without_colour(read_tail(path, _TAIL_BYTES)).replace("\r", "\n").split("\n")
    return next((redact(line.strip()) for line in reversed(lines) if line.strip()), None)


def _read_json(path: Path) -> Status:
    """Return a file's object, an empty one where there is none; run files are never half written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no object; remove it")
    return found


def _between(started: str | None, ended: str | None) -> float | None:
    """Return the seconds between two times as run.json writes them, up to now without the second."""
    if not started:
        return None
    end = time.time() if ended is None else _seconds(ended)
    return round(max(end - _seconds(started), 0.0), 1)


def _seconds(written: str) -> float:
    return datetime.fromisoformat(written).timestamp()
