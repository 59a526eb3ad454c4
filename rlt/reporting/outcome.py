"""What a training run did, in sentences, for the top of its report: what was trained, did it help, how sure.

All of it comes from the run directory: run.json, metrics.jsonl, timings, and the samples of evaluations. What
is not known is named, never guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Protocol

from rlt.io import Input
from rlt.rundir.metrics import MetricsRow, series
from rlt.rundir.run_json import RunJson
from rlt.rundir.samples import SampleRow, read_samples, sample_files
from rlt.surroundings.timeline import PHASES
from rlt.text import Rows


class Change(Protocol):
    """A difference of means with its 95 % interval."""

    @property
    def mean(self) -> float:
        """Of the differences."""
        ...

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        ...


Paired = Callable[[Mapping[str, float], Mapping[str, float]], Change]
"""Takes a value of each problem before and after; raises DataError where fewer than two can be compared."""

_MEASURES = ("reward", "r_ss", "r_kl")
_HELD_OUT = "eval_"


def sentences(run_dir: Path, run: RunJson, rows: list[MetricsRow], paired: Paired) -> list[str]:
    """Return what was trained, and what is known of its effect."""
    return [
        _trained(run, rows),
        *(_held_out(run_dir, paired) or _held_out_loss(rows) or [_nothing_held_out(run)]),
    ]


def _trained(run: RunJson, rows: list[MetricsRow]) -> str:
    inputs = run.get("inputs", {})
    steps = max((row["step"] for row in rows), default=0)
    of = {role: _name(found) for role, found in inputs.items() if found}
    words = f"{run.get('stage')} trained {of.get('model', 'a model')}"
    if "dataset" in of:
        words += f" on {of['dataset']}"
    if "student" in of:
        words += f", paid by the student {of['student']}"
    state = {"finished": "", "running": " so far"}.get(str(run.get("status")), f"; it is {run.get('status')}")
    return f"{words}: {steps:,} step{'s' * (steps != 1)}{state}."


def _name(found: Input) -> str:
    """Return how a model or dataset is called: its Hub name, or the last part of its path."""
    place = found.get("hub") or found.get("folder") or found.get("file") or "?"
    return str(place) if found.get("hub") else Path(str(place)).name


def _held_out(run_dir: Path, paired: Paired) -> list[str]:
    """Return the change of each measure from the first to the last evaluation, paired by problem."""
    files = sample_files(run_dir / "samples", _HELD_OUT)
    if len(files) < 2:
        return []
    (first, before_file), *_, (last, after_file) = files.items()
    before, after = (read_samples(path) for path in (before_file, after_file))
    lines = []
    for name in _MEASURES:
        old, new = by_problem(before, name), by_problem(after, name)
        both = sorted(old.keys() & new.keys())
        if len(both) < 2:
            continue
        change = paired({key: old[key] for key in both}, {key: new[key] for key in both})
        lines.append(
            f"Held-out {name} of {len(both)} problems: {fmean(old[k] for k in both):.3f} at step {first}, "
            f"{fmean(new[k] for k in both):.3f} at step {last}: {change.mean:+.3f} "
            f"[{change.low:+.3f}, {change.high:+.3f}] (95 %, paired by problem), {_verdict(change)}."
        )
    return lines


def by_problem(rows: list[SampleRow], name: str) -> dict[str, float]:
    """Return the mean of a column for each problem that has a finite one."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        value = row.get(name)
        if isinstance(value, int | float) and value == value:
            found[str(row["problem_id"])].append(float(value))
    return {problem: fmean(values) for problem, values in found.items()}


def _verdict(change: Change) -> str:
    if change.low > 0:
        return "an increase by more than noise"
    return "a decrease by more than noise" if change.high < 0 else "no more than noise"


def _held_out_loss(rows: list[MetricsRow]) -> list[str]:
    steps, values, _ = series(rows, "eval_loss")
    if not steps:
        return []
    if len(steps) == 1:
        return [f"Held-out loss: {values[0]:.4g} at step {steps[0]}; evaluated once, so no change is known."]
    change = f"{values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}"
    return [f"Held-out loss: {change}; one number for all rows, so without an interval."]


def _nothing_held_out(run: RunJson) -> str:
    settings = (
        "evaluation.path and evaluation.steps" if str(run.get("stage")).endswith("rl") else "evaluation.path"
    )
    return (
        "Nothing was evaluated twice on held-out rows, so this page cannot say whether the training helped: "
        f"set {settings}."
    )


def times(rows: list[MetricsRow]) -> Rows:
    """Return the mean seconds of each phase of a logged step with their share of it; () if none is known.

    Phases may overlap, so the shares may add up to more than 100 %.
    """
    _, steps, _ = series(rows, "time/step")
    if not steps:
        return ()
    whole = fmean(steps)
    table = [("phase", "seconds a step", "share")]
    for phase, words in PHASES.items():
        _, values, _ = series(rows, f"time/{phase}")
        if values and (mean := fmean(values)) > 0:
            table.append((words, f"{mean:.3g}", f"{100 * mean / whole:.0f} %"))
    return (*table, ("whole step", f"{whole:.3g}", "100 %"))
