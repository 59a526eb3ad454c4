"""The numbers of an evaluation as Markdown tables, with published ones beside them where asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlt.evaluation.protocol import Facts, described
from rlt.evaluation.published import PUBLISHED, TASKS, TRUST, unlike
from rlt.evaluation.summary import Numbers
from rlt.text import markdown

Summary = Mapping[str, Numbers]
Rows = list[list[str]]


def summary_page(summary: Summary, model: str, facts: Facts, *, reference: bool) -> str:
    """Return summary.md; `reference` adds what others have published.

    `facts` are what summary.json says besides the tasks.
    """
    parts = [
        f"# {model}",
        f"{how_measured(facts['sampling'])} {described(facts)}",
        markdown(results(summary)).strip(),
        *withheld(summary),
    ]
    if len(rows := by_group(summary)) > 1:
        parts += ["## By groups of problems", markdown(rows).strip()]
    if reference and has_published(list(summary)):
        beside = markdown(beside_published(summary, model, facts)).strip()
        parts += ["## Beside published results", beside, legend(summary, facts)]
    return "\n\n".join(parts) + "\n"


def how_measured(sampling: Facts) -> str:
    """Return how the answers were sampled, and what the columns of `results` are."""
    shown = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed")
    how = ", ".join(f"{name} {sampling[name]:g}" for name in shown)
    return f"Sampled with {how}. Shares in percent; k samples of each problem. The accuracy is our grader's."


def results(summary: Summary) -> Rows:
    """Return one line per task, the head first; accuracies in percent."""
    head = ["task", "problems", "k", "accuracy", "95 % interval", "by SkyThought", "pass@k", "majority@k"]
    head += ["well formed", "cut", "undecided", "mean tokens"]
    return [head, *(_line(task, numbers) for task, numbers in summary.items())]


def withheld(summary: Summary) -> list[str]:
    """Return one sentence for each task of which a server has not sent all answers."""
    return [
        f"{sum(counts.values())} of {numbers['num_samples']} answers of {task} were not sent by the server "
        f"and count as wrong: {', '.join(f'{reason} {count}' for reason, count in counts.items())}."
        for task, numbers in summary.items()
        if (counts := numbers.get("withheld"))
    ]


def _line(task: str, numbers: Numbers) -> list[str]:
    last = list(numbers["pass_at"])[-1]
    return [
        task,
        str(numbers["num_problems"]),
        f"{numbers['samples_per_problem']:g}",
        percent(numbers["accuracy"]),
        _between(numbers["interval_95"]) or "-",
        with_interval(numbers["accuracy_skythought"], numbers.get("interval_95_skythought")),
        with_interval(numbers["pass_at"][last], numbers.get("interval_95_pass_at", {}).get(last)),
        with_interval(numbers["majority"], numbers.get("interval_95_majority")),
        percent(numbers["well_formed"]),
        f"{numbers['cut']} ({percent(numbers['truncated'])})",
        str(numbers["undecided"]),
        f"{numbers['tokens']['mean']:.0f}" if numbers["tokens"] else "-",
    ]


def by_group(summary: Summary) -> Rows:
    """Return one line per group of problems, such as a level of MATH-500, the head first."""
    rows = [["task", "group", "problems", "accuracy", "cut"]]
    for task, numbers in summary.items():
        for column, values in numbers.get("groups", {}).items():
            for value, found in values.items():
                shown = with_interval(found["accuracy"], found["interval_95"])
                rows.append([task, f"{column} {value}", str(found["num_problems"]), shown, str(found["cut"])])
    return rows


def with_interval(share: float | None, interval: Sequence[float] | None) -> str:
    """Return a share in percent with its 95 % interval in brackets."""
    if share is None:
        return "-"
    return f"{percent(share)} [{_between(interval)}]" if interval else percent(share)


def _between(interval: Sequence[float] | None) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""


def beside_published(summary: Summary, model: str, facts: Facts) -> Rows:
    """Return our accuracies above the published ones, in percent; only tasks that have such are shown.

    A star marks what was measured otherwise than here.
    """
    shown = [task for task in TASKS if task in summary]
    ours = [percent(summary[task]["accuracy"]) for task in shown]
    rows = [["model", *shown, "source"], [model, *ours, "this run"]]
    theirs = [summary[task]["accuracy_skythought"] for task in shown]
    if None not in theirs:
        rows.append([f"{model}, by SkyThought's program", *map(percent, theirs), "this run"])
    for other in PUBLISHED:
        marks = [" *" if unlike(other.trust, task, summary[task], facts) else "" for task in shown]
        values = [f"{other.accuracy(task):.1f}{mark}" for task, mark in zip(shown, marks, strict=True)]
        rows.append([other.model, *values, other.trust])
    return rows


def legend(summary: Summary, facts: Facts) -> str:
    """Return what the marks of published numbers mean, and what a starred one was measured otherwise in."""
    found: dict[str, list[str]] = {}
    for trust in TRUST:
        for task in (task for task in TASKS if task in summary):
            if differs := unlike(trust, task, summary[task], facts):
                found.setdefault(f"{task}: {', '.join(differs)}", []).append(trust)
    text = "Published: " + "; ".join(f"{mark}, {what}" for mark, what in TRUST.items()) + "."
    if not found:
        return text
    stars = "; ".join(f"{', '.join(dict.fromkeys(trusts))}: {what}" for what, trusts in found.items())
    return f"{text} * Not comparable with this run. {stars}."


def percent(share: float) -> str:
    """Return a share in percent with one decimal."""
    return f"{100 * share:.1f}"


def has_published(tasks: Sequence[str]) -> bool:
    """Whether any of these tasks has published numbers."""
    return any(task in TASKS for task in tasks)
