"""report.html of a training run: one file with its results, from what is in its directory; SFT and RL.

Plots are inline images; what comes from models, datasets and settings is escaped (pages.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlt.pages import Figure
from rlt.reporting.card import moving_student
from rlt.reporting.curves import draw_panel, panels_of
from rlt.reporting.outcome import Paired, sentences, times
from rlt.reporting.run_page import write_run_page
from rlt.reporting.timeline_plot import draw_timeline, median_step
from rlt.rundir.metrics import NAME as METRICS_NAME
from rlt.rundir.metrics import MetricsRow, read_metrics, series
from rlt.rundir.processes import gpus_of_servers
from rlt.rundir.run_record import read_run
from rlt.rundir.samples import SCORE_KEYS, TEXTS, SampleRow, read_samples, sample_files
from rlt.rundir.timeline import NAME as TIMELINE_NAME
from rlt.rundir.timeline import read_timelines
from rlt.text import shorten_middle

_NUM_SAMPLES = 3
_ENDS = 5
"""Logged steps averaged at either end of a run in the summary."""


def write_report(run_dir: str | Path, paired: Paired) -> Path:
    """Return the path of report.html, written into the run directory from what it holds so far.

    `paired` says how sure a change by problem is.
    """
    run_dir = Path(run_dir)
    run = read_run(run_dir)
    metrics_path = run_dir / METRICS_NAME
    rows = read_metrics(metrics_path) if metrics_path.exists() else []
    last_step = max((row["step"] for row in rows), default=None)
    config_path = run_dir / "config.yaml"
    config = yaml.safe_load(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
    moved = moving_student(config or {})
    return write_run_page(
        run_dir,
        run,
        "training.html.j2",
        note="" if last_step is None else f"{last_step} step{'' if last_step == 1 else 's'}",
        sentences=[*([moved] if moved else []), *sentences(run_dir, run, rows, paired)],
        summary=_summary(rows),
        ends=_ENDS,
        curves=[Figure(draw_panel(rows, panel), panel.title, panel.note) for panel in panels_of(rows)],
        times=times(rows),
        one_step=_one_step(run_dir),
        samples=_samples(run_dir / "samples", last_step),
    )


@dataclass(frozen=True)
class _Line:
    """A metric at either end of a run."""

    name: str
    start: str
    end: str
    bad: int
    """How often it was not finite."""


def _summary(rows: list[MetricsRow]) -> list[_Line]:
    """Return the first and last values, held-out ones where they exist."""
    lines = []
    for key in dict.fromkeys(
        key for panel in panels_of(rows) for key in panel.keys if key != "learning_rate"
    ):
        steps, values, bad = series(rows, key)
        if steps or bad:
            lines.append(_Line(key, _mean(values[:_ENDS]), _mean(values[-_ENDS:]), len(bad)))
        steps, values, bad = series(rows, f"eval_{key}")
        if steps or bad:
            ends = (_eval_point(rows, key, 0), _eval_point(rows, key, -1))
            lines.append(_Line(f"held out: {key}", *ends, len(bad)))
    return lines


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4g}" if values else "-"


def _eval_point(rows: list[MetricsRow], key: str, index: int) -> str:
    steps, values, _ = series(rows, f"eval_{key}")
    if not steps:
        return "-"
    low = dict(zip(*series(rows, f"eval_{key}_low")[:2], strict=True)).get(steps[index])
    high = dict(zip(*series(rows, f"eval_{key}_high")[:2], strict=True)).get(steps[index])
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{values[index]:.4g}{interval}"


def _one_step(run_dir: Path) -> Figure | None:
    """Return the picture of the step of median length: what each server and each process did when."""
    path = run_dir / TIMELINE_NAME
    steps = [step for step in read_timelines(path) if step.spans] if path.exists() else []
    if not steps:
        return None
    step = median_step(steps)
    which = "the only one" if len(steps) == 1 else f"of median length among the {len(steps)} that were logged"
    caption = f"step {step.step}, {which}: {step.seconds:.3g} s; evaluations and checkpoints lie outside"
    return Figure(draw_timeline(step, gpus_of_servers(run_dir)), "what was done when", caption)


def _samples(folder: Path, last_step: int | None) -> dict[str, Any] | None:
    """Return best and worst samples of the last step that the metrics know of."""
    files = sample_files(folder)
    steps = [step for step in files if last_step is None or step <= last_step]
    if not steps:
        return None
    rows = read_samples(files[steps[-1]])
    rows.sort(key=_reward, reverse=True)
    best = rows[:_NUM_SAMPLES]
    worst = rows[len(best) :][-_NUM_SAMPLES:][::-1]
    chosen = [_sample(row, "best") for row in best] + [_sample(row, "worst") for row in worst]
    return {"step": steps[-1], "total": len(rows), "chosen": chosen}


def _reward(row: SampleRow) -> float:
    """Return the reward that samples are ordered by; one without a number comes last."""
    reward = row.get("reward")
    return reward if isinstance(reward, int | float) and reward == reward else float("-inf")


def _sample(row: SampleRow, kind: str) -> dict[str, Any]:
    scores = [(key, row[key]) for key in SCORE_KEYS if isinstance(row.get(key), int | float)]
    texts = [(label, row[key]) for key, label in TEXTS.items() if row.get(key) is not None]
    return {
        "kind": kind,
        "place": f"{kind} · problem {row.get('problem_id', '?')} · sample {row.get('sample_index', '?')}",
        "scores": [(key, f"{score:.4g}") for key, score in scores],
        "texts": [(label, shorten_middle(str(text), 4000)) for label, text in texts],
    }
