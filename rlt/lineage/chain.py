"""From a run back to where everything that it read came from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rlt.io import Input, input_label
from rlt.lineage.runs import Run, Runs
from rlt.rundir.cost import cost_of


def history(run: Run, runs: Runs) -> list[dict[str, Any]]:
    """Return the run and every run before it, each with its cost, its inputs and who wrote them."""
    steps: dict[str, dict[str, Any]] = {}
    waiting = [run]
    while waiting:
        current = waiting.pop(0)
        key = str(current.directory)
        if key in steps:
            continue
        steps[key] = {**current.summary(), "cost": asdict(cost_of(current.directory)), "inputs": []}
        for role, described in current.inputs.items():
            source, before = input_origin(role, described, runs)
            steps[key]["inputs"].append(source)
            waiting += [before] if before else []
    return list(steps.values())


def input_origin(role: str, described: Input, runs: Runs) -> tuple[dict[str, Any], Run | None]:
    """Return an input with the run that wrote it, or the sentence that says why none is known."""
    origin = runs.origin(described)
    recorded = described.get("folder") or described.get("file") or described.get("hub")
    steps = {
        "role": role,
        "recorded": recorded,
        "label": input_label(described),
        "sha256": described.get("sha256"),
        "path": origin.path and str(origin.path),
        "run": origin.run and str(origin.run.directory),
        "end": origin.end,
    }
    return steps, origin.run
