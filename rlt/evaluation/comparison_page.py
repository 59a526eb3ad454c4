"""What `compare` says, as Markdown and as one HTML file with a picture that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rlt.evaluation.intervals import share_interval
from rlt.evaluation.paired import Paired
from rlt.evaluation.runs import Model
from rlt.pages import render
from rlt.text import markdown

Table = list[list[str]]
_WIDTH, _LEFT, _LINE = 720, 250, 26
"""Pixels of the picture, of its names, and of a line."""


def accuracies(models: Sequence[Model]) -> Table:
    """Return a line for each task and model: accuracy with its interval, and what was not graded whole."""
    rows = [["task", "model", "problems", "samples", "accuracy [95 %]", "cut", "undecided"]]
    for task in models[0].shares:
        for model in models:
            shares = list(model.shares[task].values())
            sure = ""
            if len(shares) > 1:
                found = share_interval(shares, model.samples[task] / len(shares))
                sure = f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
            rows.append(
                [
                    *(task, model.name, str(len(shares)), str(model.samples[task])),
                    f"{100 * fmean(shares):.1f}{sure}",
                    *(str(model.cut[task]), str(model.undecided[task])),
                ]
            )
    return rows


_NONE = "There are none."


def differences(pairs: Sequence[Paired]) -> Table:
    """Return a line for each comparison."""
    rows = [["task", "model", "first", "this", "difference [95 %]", "better / worse", "p (sign test)"]]
    for pair in pairs:
        mean, low, high = (100 * v for v in (pair.difference.mean, pair.difference.low, pair.difference.high))
        rows.append(
            [
                *(pair.task, pair.second, f"{100 * pair.before:.1f}", f"{100 * pair.after:.1f}"),
                f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
                *(f"{pair.num_better} / {pair.num_worse}", f"{pair.p_value:.3g}"),
            ]
        )
    return rows


def by_problem(models: Sequence[Model]) -> Table:
    """Return the problems on which models differ, the largest differences first within a task."""
    rows = [["task", "problem", *(model.name for model in models)]]
    for task, shares in models[0].shares.items():
        found = {problem: [model.shares[task][problem] for model in models] for problem in shares}
        differing = [problem for problem, values in found.items() if max(values) > min(values)]
        for problem in sorted(differing, key=lambda p: (min(found[p]) - max(found[p]), p)):
            rows.append([task, problem, *(f"{100 * share:.0f} %" for share in found[problem])])
    return rows


def sentences(pairs: Sequence[Paired], what: str = "comparisons") -> list[str]:
    """Return what is more than noise, and what several comparisons mean for it."""
    num = len(pairs)
    found = [pair.sentence(num) for pair in pairs]
    if num > 1:
        found.append(
            f"There are {num} {what}. Without any difference, one of them or more would have p < 0.05 in "
            f"up to {100 * (1 - 0.95**num):.0f} % of cases, so the sentences above take each p-value times "
            f"{num} (Bonferroni). The intervals are for one comparison each."
        )
    return found


def notes(models: Sequence[Model], protocol_differs: Sequence[str]) -> list[str]:
    """Return what a reader has to know besides the numbers."""
    pooled = [
        f"{model.name} pools {len(model.runs)} runs by problem: intervals are over problems, not over seeds."
        for model in models
        if len(model.runs) > 1
    ]
    return pooled + [f"Note: {what}, so the models are not all that differs." for what in protocol_differs]


def markdown_page(
    models: Sequence[Model],
    pairs: Sequence[Paired],
    groups: Sequence[Paired],
    protocol_differs: Sequence[str],
    *,
    with_problems: bool,
) -> str:
    """Return the tables and sentences as Markdown."""
    parts = [
        _table(accuracies(models)),
        _table(differences(pairs)),
        "\n".join(sentences(pairs)),
    ]
    if groups:
        parts += ["## By groups of problems", _table(differences(groups))]
        parts += ["\n".join(sentences(groups, "comparisons of groups"))]
    if with_problems:
        rows = by_problem(models)
        parts += ["## Problems on which the models differ", _table(rows) if rows[1:] else _NONE]
    if found := notes(models, protocol_differs):
        parts.append("\n".join(found))
    return "\n\n".join(parts) + "\n"


def _table(rows: Table) -> str:
    return markdown(rows, padded=False).rstrip()


def html_page(
    models: Sequence[Model],
    pairs: Sequence[Paired],
    groups: Sequence[Paired],
    protocol_differs: Sequence[str],
    grader: str,
) -> str:
    """Return the same as one page that loads nothing, with the differences as a picture."""
    return render(
        "comparison.html.j2",
        title=" / ".join(model.name for model in models),
        first=models[0].name,
        grader=grader,
        differences=_shown(pairs, "comparisons"),
        accuracies=accuracies(models),
        groups=_shown(groups, "comparisons of groups") if groups else None,
        problems=by_problem(models),
        notes=notes(models, protocol_differs),
    )


def _shown(pairs: Sequence[Paired], what: str) -> dict[str, Any]:
    return {"picture": _picture(pairs), "table": differences(pairs), "sentences": sentences(pairs, what)}


def _picture(pairs: Sequence[Paired]) -> dict[str, Any]:
    """Return where the differences with their intervals are drawn, one above the other, 0 a dashed line."""
    ends = [abs(end) for pair in pairs for end in (pair.difference.low, pair.difference.high)]
    most = max(0.01, *ends)
    height = _LINE * len(pairs) + 34

    def x(value: float) -> float:
        return round(_LEFT + (value + most) / (2 * most) * (_WIDTH - _LEFT - 16), 1)

    lines = []
    for number, pair in enumerate(pairs):
        found = pair.difference
        line = {"name": f"{pair.task}: {pair.second}", "y": _LINE * (number + 0.6)}
        line |= {"low": x(found.low), "mean": x(found.mean), "high": x(found.high)}
        lines.append({**line, "color": "#1f5fa8" if found.low > 0 or found.high < 0 else "#777"})
    ticks = [(x(v), f"{100 * v:+.1f}") for v in (-most, 0.0, most)]
    size = {"width": _WIDTH, "height": height, "left": _LEFT, "base": height - 24}
    return {**size, "zero": x(0), "lines": lines, "ticks": ticks}
