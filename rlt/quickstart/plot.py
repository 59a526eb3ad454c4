"""The quickstart's plot: held-out reward and its parts, kinds of explanation, the students' right answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlt.evaluation.intervals import mean_interval
from rlt.io import write_atomically
from rlt.quickstart.report import MEASURES, Comparison, Row, by_problem
from rlt.quickstart.students import Students
from rlt.rundir.metrics import series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METRICS = {"reward": "reward", "r_SS": "r_ss", "r_KL": "r_kl"}
_NOTES = {
    "reward": "reward = r_SS - r_KL + format",
    "r_SS": "r_SS: how likely the student finds the solution",
    "r_KL": "r_KL: how unnatural it finds the explanation",
}
_KINDS = {"good": "#2d8050", "vague": "#9a9a9a", "faulty": "#c2571a"}


def write_plot(
    path: Path,
    comparison: Comparison,
    students: Students,
    by_step: Mapping[int, list[Row]],
    metrics: list[Row],
) -> Path:
    """Return `path`, holding the plot as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    (reward, r_ss, answers), (r_kl, kinds, unused) = figure.subplots(2, 3)
    for axes, name in zip((reward, r_ss, r_kl), _METRICS, strict=True):
        _draw_measure(axes, name, by_step, metrics)
    _draw_kinds(kinds, comparison)
    _draw_students(answers, students)
    unused.remove()
    figure.suptitle(
        f"The toy world: {comparison.num_problems} held-out problems, "
        f"{comparison.num_samples} explanations each, {comparison.step} RL steps"
    )
    return write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def _draw_measure(axes: Axes, name: str, by_step: Mapping[int, list[Row]], metrics: list[Row]) -> None:
    from matplotlib.ticker import MaxNLocator

    steps, values, _ = series(metrics, _METRICS[name])
    axes.plot(steps, values, color="#9bb7d4", linewidth=1.2, label="training batches")
    points = [mean_interval(list(by_problem(rows, MEASURES[name]).values())) for rows in by_step.values()]
    axes.errorbar(
        list(by_step),
        [point.mean for point in points],
        yerr=[
            [point.mean - point.low for point in points],
            [point.high - point.mean for point in points],
        ],
        fmt="o-",
        color="#1f5fa8",
        capsize=4,
        label="held out, 95 % interval",
    )
    axes.set_title(_NOTES[name], loc="left", fontsize=10)
    axes.set_xlabel("RL step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _draw_kinds(axes: Axes, comparison: Comparison) -> None:
    left = [0.0, 0.0]
    for kind, color in _KINDS.items():
        change = comparison.changes[f"{kind} explanations"]
        widths = [100 * change.before, 100 * change.after]
        axes.barh(["before RL", "after RL"], widths, left=left, color=color, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_title("kinds of explanation, % of held-out samples", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))


def _draw_students(axes: Axes, students: Students) -> None:
    names, points = list(students.accuracy), list(students.accuracy.values())
    below = [100 * (point.mean - point.low) for point in points]
    above = [100 * (point.high - point.mean) for point in points]
    colors = ["#9a9a9a", "#9bb7d4", "#1f5fa8"]
    axes.bar(names, [100 * p.mean for p in points], yerr=[below, above], color=colors, capsize=4)
    axes.set_ylim(0, 100)
    axes.set_title("students: right answers in %, 95 % interval", loc="left", fontsize=10)
    axes.grid(alpha=0.25, axis="y")
