"""Curves of a run as small SVG figures, from the lines of metrics.jsonl.

A panel is drawn when a run has one of its metrics, so SFT and RL runs share the list. Held-out points are
dots, with a bar from `eval_X_low` to `eval_X_high` where these are logged. A value that was not finite is a
red cross on the lower edge: it is never dropped silently. matplotlib is loaded when something is drawn:
every command imports this module, and few draw.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlt.config.schema import BENCHMARKS, LOCAL_TASK
from rlt.rundir.metrics import MetricsRow, series
from rlt.surroundings.timeline import PHASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#1f5fa8", "#c2571a", "#2d8050", "#7d4fa3", "#8a8a8a", "#d9a441", "#00838f", "#a0305a")
_SMOOTH_ABOVE = 40
"""Curves with more points than this are drawn pale, under their running mean."""


@dataclass(frozen=True)
class Panel:
    """One small figure: a title, the metrics in it, and what to know about them."""

    title: str
    keys: tuple[str, ...]
    note: str = ""
    log_scale: bool = False
    """Where all values are positive."""


_COMPONENT = "component/"
PANELS = (
    Panel("reward", ("reward",), "mean over the batch; of explanations it is r_ss - r_kl + format"),
    Panel("right answers", ("correct",), "share of completions that a grader takes for right"),
    Panel(
        "distance from the teacher",
        ("reverse_kl", "divergence"),
        "a token: log p of student less teacher on the samples, and the divergence of the loss",
    ),
    Panel("loss of the answer", ("answer_loss",), "-log p of a token around the student's own thought"),
    Panel("log p of the samples", ("student_logprob", "teacher_logprob"), "mean of a token"),
    Panel(
        "r_ss",
        ("r_ss", "r_ss_alone"),
        "how likely the student finds the solution; higher is better; alone: before it is compared in groups",
    ),
    Panel("r_kl", ("r_kl",), "how unnatural the student finds the explanation; lower is better"),
    Panel("hardest tokens", ("r_ss_min", "r_kl_max"), "the worst token of solution and explanation"),
    Panel("spread in a group", ("reward_std", "frac_reward_zero_std"), "no spread, no signal"),
    Panel("length (tokens)", ("explanation_tokens", "completions/mean_length", "solution_tokens")),
    Panel(
        "share of completions",
        ("missing_tag", "monitor/malformed", "completions/clipped_ratio", "text_after_tag"),
        "without the end tag, or not in a student's form; cut at the limit; with text after the tag",
    ),
    Panel(
        "solution given away",
        ("monitor/solution_copied", "monitor/solution_first"),
        "share of a long solution's 8-word sequences that is copied; share that starts with a short one",
    ),
    Panel("length drift", ("monitor/length_ratio",), "mean explanation against that of the first steps"),
    Panel("balance", ("monitor/kl_share",), "r_kl's share of V(r_ss) + V(r_kl) within groups"),
    Panel("engine drift", ("drift/max", "drift/mean"), "|policy - sampled| log-probability", log_scale=True),
    Panel("KL to the reference", ("kl",)),
    Panel("entropy", ("entropy",)),
    Panel("loss", ("loss",)),
    Panel("token accuracy", ("mean_token_accuracy",)),
    Panel("gradient norm", ("grad_norm",)),
    Panel("learning rate", ("learning_rate",)),
    Panel(
        "seconds a step",
        ("time/step", *(f"time/{phase}" for phase in PHASES)),
        "where the time goes; phases may overlap",
    ),
    Panel("tokens a second", ("perf/tokens_per_second",), "real tokens of the update by whole steps"),
    Panel("share of the peak", ("perf/mfu",), "operations of the update by the peak of its GPUs (MFU)"),
    Panel("padding", ("perf/padding",), "tokens that the update computes by those that are real"),
)


def panels_of(rows: list[MetricsRow]) -> list[Panel]:
    """Return the panels that a run has something to show in; components of the reward get one each."""
    shown = [panel for panel in PANELS if any(_is_logged(rows, key) for key in panel.keys)]
    shown += [panel for task in _benchmarks(rows) for panel in _panels_of_benchmark(task)]
    names = sorted({key for row in rows for key in row if key.startswith(_COMPONENT)})
    return [*shown, *(Panel(name, (name,), "before its weight; added to the reward") for name in names)]


def _benchmarks(rows: list[MetricsRow]) -> list[str]:
    """Return the benchmarks that were answered while training, also those of evaluate.benchmarks."""
    keys = {key.removeprefix("eval_") for row in rows for key in row if key.startswith("eval_")}
    tasks = {key.removesuffix("_accuracy") for key in keys if key.endswith("_accuracy")}
    known = (*BENCHMARKS, LOCAL_TASK)
    order = {task: place for place, task in enumerate(known)}
    return sorted((t for t in tasks if f"{t}_truncated" in keys), key=lambda t: (order.get(t, len(known)), t))


def _panels_of_benchmark(task: str) -> tuple[Panel, Panel]:
    about = "share of a benchmark's answers, and of those cut at the limit"
    return (
        Panel(f"{task}: right answers", (f"{task}_accuracy", f"{task}_truncated"), about),
        Panel(f"{task}: length (tokens)", (f"{task}_tokens",)),
    )


def draw_panel(rows: list[MetricsRow], panel: Panel) -> str:
    """Return a panel as a standalone SVG document."""
    from matplotlib.ticker import MaxNLocator

    def plot(axes: Axes) -> None:
        drawn = [key for key in panel.keys if _is_logged(rows, key)]
        assert len(drawn) <= len(COLORS), panel.title
        for key, color in zip(drawn, COLORS, strict=False):
            _draw_metric(axes, rows, key, color)
        _draw_missing(axes, rows, drawn)
        values = [v for key in drawn for v in series(rows, key)[1]]
        if panel.log_scale and values and min(values) > 0:
            axes.set_yscale("log")
        axes.set_title(panel.title, loc="left", fontweight="bold")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=6.5, frameon=False, handlelength=1.2)

    return draw(plot, size=(3.6, 2.3))


def draw(plot: Callable[[Axes], None], size: tuple[float, float]) -> str:
    """Return a standalone SVG document of that size in inches, in the style of all our figures."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(
        {"font.size": 8, "svg.hashsalt": "rlt", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.25, linewidth=0.5)
        plot(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().decode()


def _draw_metric(axes: Axes, rows: list[MetricsRow], key: str, color: str) -> None:
    steps, values, _ = series(rows, key)
    if len(steps) > _SMOOTH_ABOVE:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(steps, running_mean(values, len(values) // 20), color=color, linewidth=1.4, label=key)
    elif steps:
        marker = "." if len(steps) < 15 else ""
        axes.plot(steps, values, color=color, linewidth=1.2, marker=marker, markersize=4, label=key)
    steps, values, _ = series(rows, f"eval_{key}")
    if not steps:
        return
    low = dict(zip(*series(rows, f"eval_{key}_low")[:2], strict=True))
    high = dict(zip(*series(rows, f"eval_{key}_high")[:2], strict=True))
    known = [(s, low[s], high[s]) for s in steps if s in low and s in high]
    if known:
        axes.vlines(*zip(*known, strict=True), color=color, linewidth=1)
    axes.plot(
        steps, values, "o", color=color, markersize=4, markerfacecolor="white", label=f"held out: {key}"
    )


def _draw_missing(axes: Axes, rows: list[MetricsRow], keys: list[str]) -> None:
    bad = sorted({step for key in keys for name in (key, f"eval_{key}") for step in series(rows, name)[2]})
    if bad:
        axes.plot(
            bad,
            [0.02] * len(bad),
            "x",
            color="#d00000",
            markersize=5,
            clip_on=False,
            transform=axes.get_xaxis_transform(),
            label=f"not finite ({len(bad)})",
        )


def running_mean(values: list[float], half_window: int) -> list[float]:
    """Return the mean of each value and up to `half_window` neighbours on either side."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i - half_window) : i + half_window + 1]
        means.append(sum(window) / len(window))
    return means


def _is_logged(rows: list[MetricsRow], key: str) -> bool:
    return any(steps or bad for steps, _, bad in (series(rows, key), series(rows, f"eval_{key}")))
