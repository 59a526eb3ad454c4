"""A context budget: how many traces fit, which problems have one that does, and which need others. Pure.

A row fits when its whole sequence is no longer than the budget. Rows are what students are trained on (a
selection may have left some out); a problem can choose among all its well-formed explanations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rlt.data.lengths import histogram, nearest_rank
from rlt.errors import DataError
from rlt.records import Problem, Trace
from rlt.traces.columns import is_chosen, is_well_formed
from rlt.traces.packing import STEP, num_packed, padding_share

if TYPE_CHECKING:
    from rlt.traces.trace_lengths import Length

NUM_BINS = 20
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
PASSES = (1, 2, 4, 8)
"""Rows of a forward pass for which padding is reported."""
BAR_WIDTH = 24
Table = tuple[str, list[list[str]]]
"""A title, and rows of cells, the head first."""


@dataclass(frozen=True)
class Budget:
    """What becomes of rows and problems under one cutoff."""

    cutoff: int
    rows_over: int
    """Rows that would be truncated."""
    problems_with_one: int
    """Problems of which some well-formed explanation fits."""
    problems_to_choose: int
    """Of these, problems of which a row does not fit (or none is chosen): another choice helps."""
    problems_without: int
    """Problems of which no well-formed explanation fits."""


@dataclass(frozen=True)
class Unserved:
    """A problem of which no well-formed explanation fits."""

    problem_id: str
    sample_index: int
    """The lowest number that none of its explanations reaches: a new one has a seed of its own under it."""
    question: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Rows and problems under a context budget."""

    max_length: int
    problems: int
    rows: int
    left_out: int
    """Explanations that a selection left_out, and places without one."""
    not_well_formed: int
    """Of all explanations."""
    mean: float
    quantiles: dict[str, int]
    """Share of the rows -> tokens that they do not exceed."""
    budgets: list[Budget]
    """By cutoff, max_length among them."""
    histogram: list[tuple[int, int, int]]
    """(shortest, longest, rows) of bins of one width."""
    packed: int
    """Sequences of max_length tokens that would hold all rows."""
    padding: dict[int, float]
    """Rows of a forward pass -> share of padding among its tokens."""
    to_collect: list[Unserved]
    """Another explanation could fit."""
    no_room: list[Unserved]
    """Question and solution alone fill the budget."""

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers, the two lists as their lengths."""
        return {**asdict(self), "to_collect": len(self.to_collect), "no_room": len(self.no_room)}


def make_plan(
    traces: Sequence[Trace], lengths: Sequence[Length], max_length: int, cutoffs: Sequence[int]
) -> Plan:
    """Return the plan; the order of the traces does not matter. DataError where nothing is trained on."""
    members: dict[str, list[tuple[Trace, Length]]] = defaultdict(list)
    for trace, length in zip(traces, lengths, strict=True):
        members[trace.problem.id].append((trace, length))
    problems = [_Samples(members[problem_id]) for problem_id in sorted(members)]
    rows = sorted(total for problem in problems for total in problem.rows)
    if not rows:
        raise DataError(
            f"none of {len(traces)} explanations is to be trained on: all have selected=false, or no text"
        )
    unserved = [problem for problem in problems if not problem.some_fits(max_length)]
    return Plan(
        max_length=max_length,
        problems=len(problems),
        rows=len(rows),
        left_out=len(traces) - len(rows),
        not_well_formed=sum(t.explanation is not None and not is_well_formed(t) for t in traces),
        mean=fmean(rows),
        quantiles={f"{share:.0%}": nearest_rank(rows, share) for share in QUANTILES},
        budgets=[_budget(cutoff, rows, problems) for cutoff in sorted({*cutoffs, max_length})],
        histogram=list(histogram(rows, NUM_BINS)),
        packed=num_packed(rows, max_length),
        padding={n: padding_share([min(row, max_length) for row in rows], n) for n in PASSES},
        to_collect=[p.unserved() for p in unserved if p.around < max_length],
        no_room=[p.unserved() for p in unserved if p.around >= max_length],
    )


def recollect_rows(plan: Plan, num_samples: int) -> list[dict[str, Any]]:
    """Return what is to be collected: so many further samples of each problem that needs others."""
    return [
        {**asdict(problem), "sample_index": problem.sample_index + i}
        for problem in plan.to_collect
        for i in range(num_samples)
    ]


def plan_tables(plan: Plan) -> list[Table]:
    """Return the plan as tables, for any medium."""
    budgets = [["cutoff", "rows over", "share", "problems with one that fits", "to choose again", "without"]]
    for b in plan.budgets:
        counts = (b.problems_with_one, b.problems_to_choose, b.problems_without)
        over = [f"{b.rows_over}", _percent(b.rows_over, plan.rows)]
        budgets.append([f"{b.cutoff}", *over, *map(str, counts)])
    quantiles = [["share of the rows", "tokens at most"]]
    quantiles += [[share, f"{tokens}"] for share, tokens in plan.quantiles.items()]
    padding = [
        ["rows", "share of padding"],
        *([f"{n}", f"{100 * share:.1f} %"] for n, share in plan.padding.items()),
    ]
    bins = [["tokens", "rows", "share up to here", ""]]
    so_far, most = 0, max(rows for _, _, rows in plan.histogram)
    for low, high, rows in plan.histogram:
        so_far += rows
        bar = "█" * -(-BAR_WIDTH * rows // most)
        bins.append([f"{low}-{high}", f"{rows}", _percent(so_far, plan.rows), bar])
    return [
        (f"By cutoff: {plan.rows} rows of {plan.problems} problems", budgets),
        (f"Lengths (mean {plan.mean:.0f})", quantiles),
        ("Histogram", bins),
        (f"Padding, by the rows of a forward pass ({STEP} rows a step on each process)", padding),
    ]


class _Samples:
    """The explanations of one problem."""

    def __init__(self, members: Sequence[tuple[Trace, Length]]) -> None:
        traces = [trace for trace, _ in members]
        self.problem: Problem = traces[0].problem
        self.around = min(length.around for _, length in members)
        found = [(trace, length.total) for trace, length in members if length.total is not None]
        self.rows = [total for trace, total in found if is_chosen(trace)]
        """Lengths of what students are trained on."""
        self.usable = [total for trace, total in found if is_well_formed(trace)]
        """Lengths of what can be chosen."""
        self.total = len(traces)
        self.free = max(trace.sample_index for trace in traces) + 1

    def some_fits(self, cutoff: int) -> bool:
        return bool(self.usable) and min(self.usable) <= cutoff

    def rows_fit(self, cutoff: int) -> bool:
        return bool(self.rows) and max(self.rows) <= cutoff

    def unserved(self) -> Unserved:
        reason = f"{self.around} tokens without an explanation"
        if self.usable:
            num, shortest = len(self.usable), min(self.usable)
            reason += f", {shortest} with the shortest of {num} well-formed ones"
        else:
            reason += f", and none of {self.total} is well-formed"
        return Unserved(self.problem.id, self.free, self.problem.question, reason)


def _budget(cutoff: int, rows: Sequence[int], problems: Sequence[_Samples]) -> Budget:
    with_one = [problem for problem in problems if problem.some_fits(cutoff)]
    return Budget(
        cutoff=cutoff,
        rows_over=sum(length > cutoff for length in rows),
        problems_with_one=len(with_one),
        problems_to_choose=sum(not problem.rows_fit(cutoff) for problem in with_one),
        problems_without=len(problems) - len(with_one),
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
