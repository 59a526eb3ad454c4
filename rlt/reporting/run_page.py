"""What the report of any run holds beside its results: how it ended, how to repeat it, where it comes from.

All of it is read from run.json and config.yaml of the run directory; secrets are masked (redact.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlt.io import write_text
from rlt.reporting.page import escaped, html_page
from rlt.reporting.tables import named_values
from rlt.text import duration, redact

NAME = "report.html"
Run = dict[str, Any]
"""What run.json holds."""


def write_run_page(
    run_dir: Path, run: Run, sections: Iterable[str], *, note: str = "", style: str = "", script: str = ""
) -> Path:
    """Return the path of report.html: the sections (HTML) under a head that ends with how the run ended.

    `note` joins the facts there; `style` and `script` are as in `html_page`.
    """
    title = f"{run.get('stage', 'run')} · {run_dir.resolve().name}"
    page = html_page(title, [_head(title, run, note), *sections], style, script)
    return write_text(run_dir / NAME, page)


def _head(title: str, run: Run, note: str) -> str:
    status = str(run.get("status"))
    pieces = [f'<span class="{escaped(status)}">{escaped(status)}</span>']
    if note:
        pieces.append(escaped(note))
    if run.get("seconds"):
        pieces.append(duration(run["seconds"]))
    if run.get("gpu_hours"):
        pieces.append(f"{run['gpu_hours']:.2f} GPU hours")
    pieces.append(f"started {escaped(run.get('started'))}")
    error = f'<pre class="failed">{escaped(run["error"])}</pre>' if run.get("error") else ""
    return f'<h1>{escaped(title)}</h1><p class="status">{" · ".join(pieces)}</p>{error}'


def to_run_again(run: Run) -> str:
    """Return the section with the commands that repeat a run."""
    code = run.get("code", {})
    commands = []
    if code.get("commit"):
        commands.append(
            f"git checkout {code['commit']}" + ("  # plus uncommitted changes" if code["dirty"] else "")
        )
    if run.get("command"):
        commands.append(run["command"])
    seed = "" if run.get("seed") is None else f" Seed: {escaped(run['seed'])}."
    note = f"<p class='label'>Processes: {escaped(run.get('processes'))}.{seed}</p>"
    return f"<h2>To run it again</h2><pre>{escaped(redact(chr(10).join(commands)))}</pre>{note}"


def inputs(run: Run) -> str:
    """Return the section with what a run has read."""
    rows = [
        (
            role,
            f"{d.get('hub') or d.get('folder') or d.get('file')}  {d.get('commit') or d.get('sha256') or ''}",
        )
        for role, d in run.get("inputs", {}).items()
    ]
    return facts("Inputs", rows)


def versions(run: Run) -> str:
    """Return the section with the machine and the libraries of a run."""
    machine = run.get("machine", {})
    rows = [
        ("CPUs", machine.get("cpus")),
        ("GPUs", ", ".join(machine.get("gpus", [])) or "none"),
        ("rlt", run.get("code", {}).get("package")),
        *run.get("versions", {}).items(),
    ]
    return facts("Versions", rows)


def facts(title: str, rows: list[tuple[str, Any]]) -> str:
    """Return a section of names with their values, "" where there are none."""
    shown = [(name, redact(str(value))) for name, value in rows]
    return f"<h2>{escaped(title)}</h2>{named_values(shown)}" if rows else ""


def configuration(path: Path) -> str:
    """Return the section with the settings of a run, folded; "" where there is no such file."""
    if not path.exists():
        return ""
    text = escaped(redact(path.read_text(encoding="utf-8")))
    return f"<h2>Configuration</h2><details><summary>config.yaml</summary><pre>{text}</pre></details>"
