"""What `compare` says, as Markdown and as one HTML file with a picture that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from statistics import fmean

from rlt.evaluation.intervals import share_interval
from rlt.evaluation.paired import Paired
from rlt.evaluation.runs import Model
from rlt.text import markdown

Table = list[list[str]]
_WIDTH, _LEFT, _LINE = 720, 250, 26
"""Pixels of the picture, of its names, and of a line."""
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.25rem .6rem;"
    "border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}td:first-child,th:first-child,"
    "td:nth-child(2),th:nth-child(2){text-align:left}svg{max-width:100%;height:auto}"
)


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
        markdown(accuracies(models)).rstrip(),
        markdown(differences(pairs)).rstrip(),
        "\n".join(sentences(pairs)),
    ]
    if groups:
        parts += ["## By groups of problems", markdown(differences(groups)).rstrip()]
        parts += ["\n".join(sentences(groups, "comparisons of groups"))]
    if with_problems:
        rows = by_problem(models)
        parts += ["## Problems on which the models differ", markdown(rows).rstrip() if rows[1:] else _NONE]
    if found := notes(models, protocol_differs):
        parts.append("\n".join(found))
    return "\n\n".join(parts) + "\n"


def html_page(
    models: Sequence[Model],
    pairs: Sequence[Paired],
    groups: Sequence[Paired],
    protocol_differs: Sequence[str],
    grader: str,
) -> str:
    """Return the same as one page that loads nothing, with the differences as a picture."""
    title = f"{' / '.join(model.name for model in models)}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>Compared by problem with {html.escape(models[0].name)}, by the verdicts of grader {grader}.</p>",
        _picture(pairs),
        _html(differences(pairs)),
        *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(pairs)),
        "<h2>Accuracies</h2>",
        _html(accuracies(models)),
    ]
    if groups:
        body += ["<h2>By groups of problems</h2>", _picture(groups), _html(differences(groups))]
        body += [f"<p>{html.escape(sentences(groups, 'comparisons of groups')[-1])}</p>"]
    rows = by_problem(models)
    body += ["<h2>Problems on which the models differ</h2>", _html(rows) if rows[1:] else f"<p>{_NONE}</p>"]
    body += [f"<p>{html.escape(note)}</p>" for note in notes(models, protocol_differs)]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _picture(pairs: Sequence[Paired]) -> str:
    """Return the differences with their intervals, one above the other, as SVG; 0 is the dashed line."""
    ends = [abs(end) for pair in pairs for end in (pair.difference.low, pair.difference.high)]
    most = max(0.01, *ends)
    height = _LINE * len(pairs) + 34

    def x(value: float) -> float:
        return round(_LEFT + (value + most) / (2 * most) * (_WIDTH - _LEFT - 16), 1)

    def lines() -> Iterator[str]:
        for number, pair in enumerate(pairs):
            y = _LINE * (number + 0.6)
            name = html.escape(f"{pair.task}: {pair.second}")
            found = pair.difference
            is_sure = found.low > 0 or found.high < 0
            color = "#1f5fa8" if is_sure else "#777"
            yield f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{name}</text>'
            yield f'<path d="M{x(found.low)} {y}H{x(found.high)}" stroke="{color}" stroke-width="2"/>'
            yield f'<circle cx="{x(found.mean)}" cy="{y}" r="4" fill="{color}"/>'

    base = height - 24
    ticks = "".join(
        f'<text x="{x(v)}" y="{height - 6}" text-anchor="middle">{100 * v:+.1f}</text>'
        for v in (-most, 0.0, most)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="differences in points with their 95 % '
        f'intervals" font-size="12" font-family="sans-serif">'
        f'<path d="M{x(0)} 0V{base}" stroke="#999" stroke-dasharray="3 3"/>{"".join(lines())}{ticks}</svg>'
    )


def _html(table: Table) -> str:
    head, *rows = ([html.escape(cell) for cell in row] for row in table)
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
