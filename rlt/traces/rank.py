"""Order the explanations of each problem by their score, choose the best, and sum up by rank. Pure.

Rank 1 is the best; equal scores go by `sample_index`; explanations without a score come last. A fallback is
not ranked: it is chosen only where no other explanation of its problem has a score. The order of the traces
does not matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rlt.records import Trace


@dataclass(frozen=True)
class Place:
    """The rank of a trace among those of its problem."""

    rank: int | None
    """None for a fallback."""
    selected: bool


@dataclass(frozen=True)
class Bucket:
    """The scored explanations of a range of ranks: means over them."""

    first_rank: int
    last_rank: int
    count: int
    score: float
    r_ss: float
    r_kl: float
    num_tokens: float


def rank_traces(traces: Sequence[Trace], scores: Sequence[float | None]) -> list[Place]:
    """Return the place of each trace, in their order."""
    of_problem: dict[str, list[int]] = defaultdict(list)
    for i, trace in enumerate(traces):
        of_problem[trace.problem.id].append(i)
    places: dict[int, Place] = {}
    for members in of_problem.values():
        fallbacks = sorted(
            (i for i in members if traces[i].is_fallback), key=lambda i: traces[i].sample_index
        )
        ranked = sorted(
            (i for i in members if not traces[i].is_fallback),
            key=lambda i: (-_number(scores[i]), traces[i].sample_index),
        )
        if ranked and scores[ranked[0]] is not None:
            chosen = ranked[0]
        else:
            chosen = next((i for i in fallbacks if traces[i].explanation is not None), None)
        for rank, i in enumerate(ranked, start=1):
            places[i] = Place(rank, i == chosen)
        for i in fallbacks:
            places[i] = Place(None, i == chosen)
    return [places[i] for i in range(len(traces))]


def rank_buckets(rows: Sequence[dict[str, Any]], num_buckets: int) -> list[Bucket]:
    """Return the means of the scored rows by rank, the ranks shared out over at most `num_buckets`."""
    scored = [row for row in rows if row["rank"] is not None and row["score"] is not None]
    last = max((row["rank"] for row in scored), default=0)
    num_buckets = min(num_buckets, last)
    buckets = []
    for b in range(num_buckets):
        first, until = b * last // num_buckets + 1, (b + 1) * last // num_buckets
        inside = [row for row in scored if first <= row["rank"] <= until]
        means = {
            "score": fmean(row["score"] for row in inside),
            "r_ss": fmean(row["breakdown"]["r_ss"] for row in inside),
            "r_kl": fmean(row["breakdown"]["r_kl"] for row in inside),
            "num_tokens": fmean(row["num_tokens"] for row in inside),
        }
        buckets.append(Bucket(first, until, len(inside), **means))
    return buckets


def summarize(traces: Sequence[Trace], rows: Sequence[dict[str, Any]], num_buckets: int) -> dict[str, Any]:
    """Return counts and the buckets, as ranks.json holds them."""
    chosen = [row for row in rows if row["selected"]]
    problems = len({trace.problem.id for trace in traces})
    return {
        "problems": problems,
        "traces": len(rows),
        "scored": sum(row["score"] is not None for row in rows),
        "without_score": sum(row["score"] is None for row in rows),
        "selected": len(chosen),
        "selected_fallbacks": sum(row["is_fallback"] for row in chosen),
        "problems_without_selection": problems - len(chosen),
        "buckets": [asdict(bucket) for bucket in rank_buckets(rows, num_buckets)],
    }


def bucket_rows(buckets: Sequence[Bucket]) -> list[list[str]]:
    """Return the buckets as rows of a table, the best ranks first."""
    rows = [["rank", "traces", "score", "r_SS", "r_KL", "tokens"]]
    for b in buckets:
        ranks = str(b.first_rank) if b.first_rank == b.last_rank else f"{b.first_rank}-{b.last_rank}"
        rows.append([ranks, str(b.count), *(f"{x:.4g}" for x in (b.score, b.r_ss, b.r_kl, b.num_tokens))])
    return rows


def _number(score: float | None) -> float:
    return float("-inf") if score is None else score
