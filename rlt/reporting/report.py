"""report.html of a training run: one file that tells what it did, from what is in its directory; SFT and RL.

Plots are inline images; what comes from models, datasets and settings is escaped (page.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlt.reporting.curves import draw_panel, panels_of
from rlt.reporting.outcome import Paired, sentences, times
from rlt.reporting.page import escaped, figure
from rlt.reporting.run_page import configuration, inputs, to_run_again, versions, write_run_page
from rlt.reporting.tables import html_table
from rlt.reporting.timeline_plot import draw_timeline, median_step
from rlt.rundir.metrics import NAME as METRICS_NAME
from rlt.rundir.metrics import read_metrics, series
from rlt.rundir.processes import gpus_of_servers
from rlt.rundir.run_record import read_run
from rlt.rundir.samples import SCORE_KEYS, TEXTS, read_samples, sample_files
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
    sections = [
        *(f"<p>{escaped(sentence)}</p>" for sentence in sentences(run_dir, run, rows, paired)),
        _summary(rows),
        _plots(rows),
        _times(rows),
        _one_step(run_dir),
        _samples(run_dir / "samples", last_step),
        to_run_again(run),
        inputs(run),
        versions(run),
        configuration(run_dir / "config.yaml"),
    ]
    return write_run_page(run_dir, run, sections, note="" if last_step is None else f"{last_step} steps")


def _summary(rows: list[dict[str, Any]]) -> str:
    """Return the table of first and last values, held-out ones where they exist."""
    lines = []
    for key in dict.fromkeys(
        key for panel in panels_of(rows) for key in panel.keys if key != "learning_rate"
    ):
        steps, values, bad = series(rows, key)
        if steps or bad:
            ends = (_mean(values[:_ENDS]), _mean(values[-_ENDS:]))
            lines.append(_summary_line(key, ends, len(bad)))
        steps, values, bad = series(rows, f"eval_{key}")
        if steps or bad:
            ends = (_eval_point(rows, key, 0), _eval_point(rows, key, -1))
            lines.append(_summary_line(f"held out: {key}", ends, len(bad)))
    if not lines:
        return "<p>Nothing was logged.</p>"
    head = '<tr><th>metric</th><th class="n">start</th><th class="n">end</th><th></th></tr>'
    note = f"<p class='label'>Training metrics: mean of the first and last {_ENDS} logged steps.</p>"
    return f"<h2>Result</h2><table>{head}{''.join(lines)}</table>{note}"


def _summary_line(name: str, ends: tuple[str, str], num_bad: int) -> str:
    bad = f'<span class="failed">not finite {num_bad} times</span>' if num_bad else ""
    numbers = "".join(f'<td class="n">{end}</td>' for end in ends)
    return f"<tr><td>{escaped(name)}</td>{numbers}<td>{bad}</td></tr>"


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.4g}" if values else "-"


def _eval_point(rows: list[dict[str, Any]], key: str, index: int) -> str:
    steps, values, _ = series(rows, f"eval_{key}")
    if not steps:
        return "-"
    low = dict(zip(*series(rows, f"eval_{key}_low")[:2], strict=True)).get(steps[index])
    high = dict(zip(*series(rows, f"eval_{key}_high")[:2], strict=True)).get(steps[index])
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{values[index]:.4g}{interval}"


def _plots(rows: list[dict[str, Any]]) -> str:
    figures = []
    for panel in panels_of(rows):
        figures.append(figure(draw_panel(rows, panel), panel.title, panel.note))
    return f'<h2>Curves</h2><div class="grid">{"".join(figures)}</div>' if figures else ""


def _times(rows: list[dict[str, Any]]) -> str:
    """Return the table of phases."""
    table = times(rows)
    note = "<p class='label'>Means over all logged steps. Phases may overlap.</p>"
    return f"<h2>Time of a step</h2>{html_table(table)}{note}" if table else ""


def _one_step(run_dir: Path) -> str:
    """Return the picture of the step of median length: what each server and each process did when."""
    path = run_dir / TIMELINE_NAME
    steps = [step for step in read_timelines(path) if step.spans] if path.exists() else []
    if not steps:
        return ""
    step = median_step(steps)
    which = "the only one" if len(steps) == 1 else f"of median length among the {len(steps)} that were logged"
    caption = f"step {step.step}, {which}: {step.seconds:.3g} s; evaluations and checkpoints lie outside"
    svg = draw_timeline(step, gpus_of_servers(run_dir))
    return f"<h2>One step</h2>{figure(svg, 'what was done when', caption)}"


def _samples(folder: Path, last_step: int | None) -> str:
    """Return best and worst samples of the last step that the metrics know of."""
    files = sample_files(folder)
    steps = [step for step in files if last_step is None or step <= last_step]
    if not steps:
        return ""
    rows = read_samples(files[steps[-1]])
    rows.sort(key=_reward, reverse=True)
    best = rows[:_NUM_SAMPLES]
    worst = rows[len(best) :][-_NUM_SAMPLES:][::-1]
    blocks = [_sample(row, "best") for row in best] + [_sample(row, "worst") for row in worst]
    return f"<h2>Samples of step {steps[-1]}: best and worst of {len(rows)}</h2>{''.join(blocks)}"


def _reward(row: dict[str, Any]) -> float:
    """Return the reward that samples are ordered by; one without a number stands last."""
    reward = row.get("reward")
    return reward if isinstance(reward, int | float) and reward == reward else float("-inf")


def _sample(row: dict[str, Any], kind: str) -> str:
    scores = " ".join(
        f"{key} <b>{row[key]:.4g}</b>" for key in SCORE_KEYS if isinstance(row.get(key), int | float)
    )
    texts = "".join(
        f'<div class="label">{label}</div><pre>{escaped(shorten_middle(str(row[key]), 4000))}</pre>'
        for key, label in TEXTS.items()
        if row.get(key) is not None
    )
    place = escaped(f"{kind} · problem {row.get('problem_id', '?')} · sample {row.get('sample_index', '?')}")
    return f'<div class="sample {kind}"><div class="label">{place}</div><div>{scores}</div>{texts}</div>'
