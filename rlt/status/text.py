"""The state of a run, as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rlt.rundir.line import metrics_text, times_text
from rlt.status.look import Status
from rlt.text import duration, markdown

_LONGEST_LINE = 100


def text(runs: Sequence[Status]) -> str:
    """Return one run in full; of several, a table and those in full that are on."""
    if len(runs) == 1:
        return run_text(runs[0])
    rows = [["run", "stage", "state", "step", "time"]]
    for run in runs:
        step = f"{run['step']}/{run['of']}" if run.get("of") else str(run.get("step") or "")
        spent = "" if run.get("seconds") is None else duration(run["seconds"])
        rows.append([run["directory"], run["stage"] or "?", run["state"] or "?", step, spent])
    parts = [markdown(rows), *(run_text(run) for run in runs if run["state"] in ("running", "starting"))]
    return "\n".join(parts)


def run_text(run: Status) -> str:
    """Return the whole state of one run."""
    if run["stage"] == "pipeline":
        return _pipeline_text(run)
    lines = [f"{run['directory']}: {_headline(run)}"]
    if run["error"]:
        lines.append(run["error"])
    if run["doing"]:
        verb = "" if run["state"] == "running" else "was "
        since = f" for {duration(run['doing']['seconds'])}" if run["state"] == "running" else ""
        lines.append(f"{verb}{run['doing']['phase']}{since}")
    if shown := metrics_text(run["metrics"]):
        lines.append(f"step {run['step']}: {shown}")
    if times := times_text(run["metrics"]):
        lines.append(f"step {run['step']}: {times}")
    health = {server["address"]: server["health"] for server in run["servers"]}
    for process in run["processes"]:
        address = process["address"]
        where = f" at {address} ({health.pop(address)})" if address else ""
        end = " HAS ENDED" if process["alive"] is False else ""
        host = f" on {process['host']}" if process["alive"] is None else ""
        machine = f"machine {process['machine']}: " if process["machine"] else ""
        lines.append(f"{machine}{process['name']} (pid {process['pid']}{host}){end}{where}")
        lines += [f"  {child['name']} (pid {child['pid']})" for child in process["children"]]
        if process["log"]:
            lines += [f"  {process['log']}", f"  | {_short(process['last_line'] or 'nothing yet')}"]
    lines += [f"server {address} ({state})" for address, state in health.items()]
    return "\n".join(lines) + "\n"


def _headline(run: Status) -> str:
    words = [run["stage"], run["state"]]
    if run["seconds"] is not None:
        words.append(("for " if run["state"] == "running" else "after ") + duration(run["seconds"]))
    pieces = [" ".join(word for word in words if word)]
    if run["step"] is not None:
        pieces.append(f"step {run['step']}" + (f" of {run['of']} done" if run["of"] else " done"))
    if run["state"] == "running":
        if run["seconds_per_step"] is not None:
            pieces.append(f"{run['seconds_per_step']:.3g} s/step")
        if run["seconds_left"] is not None:
            pieces.append(f"{duration(run['seconds_left'])} left")
    return ", ".join(pieces)


def _pipeline_text(run: Status) -> str:
    rows = [["step", "stage", "status", "time", "directory"]]
    for step in run["steps"]:
        spent = "" if step.get("seconds") is None else duration(step["seconds"])
        rows.append([step["name"], step["stage"], step["status"], spent, step["directory"]])
    word = "for" if run["state"] == "running" else "after"
    spent = "" if run["seconds"] is None else f" {word} {duration(run['seconds'])}"
    parts = [f"{run['directory']}: pipeline {run['state']}{spent}\n", markdown(rows)]
    parts += [f"{step['name']}: {step['error']}\n" for step in run["steps"] if step.get("error")]
    return "\n".join(parts + [run_text(step["now"]) for step in run["steps"] if step.get("now")])


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"
