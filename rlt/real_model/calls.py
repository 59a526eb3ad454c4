"""calls.jsonl: when, by which command, with which code and on what machine the runs of a folder were made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlt.io import write_jsonl
from rlt.rundir.run_record import code_version, command_line, gpu_names
from rlt.text import timestamp

NAME = "calls.jsonl"


@dataclass
class Call:
    """One call of the script on a folder."""

    started: str
    command: str
    commit: str
    cpus: int
    gpus: list[str] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    """Processes that wanted to run, mean of a minute: at the start, after each pipeline, at the end."""
    ended: str | None = None


@contextmanager
def recorded_call(folder: Path) -> Iterator[Call]:
    """Add a call to the folder's file, at its start and again as it ends, however that is."""
    code = code_version()
    commit = str(code["commit"]) + (" with changes" if code["dirty"] else "")
    call = Call(timestamp(), command_line(), commit, os.cpu_count() or 1, gpu_names())
    earlier = read_calls(folder)
    note_load(call)
    _write(folder, [*earlier, call])
    try:
        yield call
    finally:
        call.ended = timestamp()
        note_load(call)
        _write(folder, [*earlier, call])


def note_load(call: Call) -> None:
    """Add the machine's load of the last minute to a call."""
    call.load.append(round(os.getloadavg()[0], 1))


def _write(folder: Path, calls: Sequence[Call]) -> None:
    write_jsonl(folder / NAME, [asdict(call) for call in calls])


def read_calls(folder: Path) -> list[Call]:
    """Return the calls of a folder, the first one first."""
    path = folder / NAME
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [Call(**json.loads(line)) for line in lines if line]
