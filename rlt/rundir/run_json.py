"""What run.json holds. Docs: docs/run_directory.md."""

from __future__ import annotations

from typing import Any, TypedDict

from rlt.io import Input


class Code(TypedDict):
    """The code that ran."""

    package: str | None
    sha256: str
    """Over the names and texts of the package's Python files."""
    commit: str | None
    dirty: bool | None
    """Whether code or configuration differs from the commit; None outside of a checkout."""


class Machine(TypedDict):
    """Where it ran."""

    system: str
    cpus: int | None
    gpus: list[str]


class Process(TypedDict):
    """The process that writes the record."""

    host: str
    pid: int


class Ended(TypedDict):
    """The end of an earlier run in the same directory."""

    stage: str | None
    status: str | None
    started: str | None
    ended: str | None
    seconds: float | None
    gpu_hours: float | None
    error: str | None


class RunJson(TypedDict):
    """A run: what, from what, on what, with which versions, and how it ended.

    A record from before a field was introduced lacks it, and so does a run that has not come to writing it.
    """

    stage: str
    status: str
    """running, finished, failed, interrupted or paused."""
    started: str
    ended: str | None
    seconds: float | None
    gpu_hours: float | None
    error: str | None
    command: str
    seed: int | None
    processes: int
    num_gpus: int
    inputs: dict[str, Input]
    """By role: model, dataset, student, …"""
    code: Code
    versions: dict[str, str]
    machine: Machine
    process: Process
    earlier: list[Ended]
    """Runs before this one in the same directory, oldest first."""
    results: Any
    """What the stage measured: its own shape."""
    skipped: int
    """Rows in skipped_rows.jsonl."""
    problems: Any
    """Of RL: how many there were, and how many were used."""
    seconds_by_phase: dict[str, float]
    """Of trainings: how long each phase took."""
