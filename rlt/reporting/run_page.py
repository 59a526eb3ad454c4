"""What the report of any run holds beside its results: how it ended, how to repeat it, where it comes from.

All of it is read from run.json and config.yaml of the run directory; secrets are masked (text.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlt.io import Input, write_text
from rlt.pages import render
from rlt.rundir.run_json import RunJson
from rlt.text import Rows, duration, redact

NAME = "report.html"
Facts = list[tuple[str, str]]
"""Names with their values."""


def write_run_page(run_dir: Path, run: RunJson, template: str, *, note: str = "", **values: Any) -> Path:
    """Return the path of report.html, made by a template that extends run.html.j2.

    `note` joins the facts at the head; `values` are what the template reads besides.
    """
    title = f"{run.get('stage', 'run')} · {run_dir.resolve().name}"
    shown = {
        "status": str(run.get("status")),
        "error": run.get("error"),
        "again": _commands(run),
        "processes": run.get("processes"),
        "seed": run.get("seed"),
        "times": _times(run),
        "inputs": facts([(role, _input(found)) for role, found in run.get("inputs", {}).items()]),
        "versions": _versions(run),
        "configuration": _configuration(run_dir / "config.yaml"),
    }
    page = render(template, title=title, head=_head(run, note), run=shown, **values)
    return write_text(run_dir / NAME, page)


def facts(rows: list[tuple[str, Any]]) -> Facts:
    """Return names with their values as text, secrets masked."""
    return [(name, redact(str(value))) for name, value in rows]


def _head(run: RunJson, note: str) -> list[str]:
    pieces = [note] if note else []
    if seconds := run.get("seconds"):
        pieces.append(duration(seconds))
    if hours := run.get("gpu_hours"):
        pieces.append(f"{hours:.2f} GPU hours")
    return [*pieces, f"started {run.get('started')}"]


def _times(run: RunJson) -> Rows:
    """Return the seconds of each phase of a run with their share of its time; () where none is known.

    A run that was continued has the phases of all of its starts, and the time of the last one.
    """
    spent = run.get("seconds_by_phase") or {}
    whole = sum(spent.values())
    if not whole:
        return ()
    share = [(name, duration(s, tenths=True), f"{100 * s / whole:.0f} %") for name, s in spent.items()]
    return [("phase", "time", "share"), *share]


def _commands(run: RunJson) -> str:
    """Return the commands that repeat a run."""
    code = run.get("code")
    commands = []
    if code and code["commit"]:
        commands.append(
            f"git checkout {code['commit']}" + ("  # plus uncommitted changes" if code["dirty"] else "")
        )
    if command := run.get("command"):
        commands.append(command)
    return redact("\n".join(commands))


def _input(found: Input) -> str:
    place = found.get("hub") or found.get("folder") or found.get("file")
    return f"{place}  {found.get('commit') or found.get('sha256') or ''}"


def _versions(run: RunJson) -> Facts:
    """Return the machine and the libraries of a run."""
    machine, code = run.get("machine"), run.get("code")
    return facts(
        [
            ("CPUs", machine and machine["cpus"]),
            ("GPUs", ", ".join(machine["gpus"] if machine else []) or "none"),
            ("rlt", code and code["package"]),
            *run.get("versions", {}).items(),
        ]
    )


def _configuration(path: Path) -> str | None:
    """Return the settings of a run, None where there is no such file."""
    return redact(path.read_text(encoding="utf-8")) if path.exists() else None
