"""Choose the explanations that students are trained on, and say why every other one was skipped. Pure.

Which explanation of a problem wins, ties and fallbacks are decided in rank.py: a rule only says by which
number explanations are ranked. Nothing depends on the order of the traces.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlt.config.schema import SelectSettings
from rlt.records import Trace
from rlt.traces.columns import is_well_formed, score_of
from rlt.traces.distance import distance_of, measure_of, summarize_distances
from rlt.traces.rank import rank_traces

NO_EXPLANATION = "no explanation"
NOT_WELL_FORMED = "not well-formed"
NO_SCORE = "no score"
NO_DISTANCE = "no distance from the student"
OUTSIDE = "rank outside of the bucket"
RESERVED = "reserved as a fallback"
ANOTHER = "another explanation was chosen"
IN_BENCHMARK = "shares text with a benchmark"
REPEATS = "repeats an earlier explanation"


@dataclass(frozen=True)
class Decision:
    """Whether a trace was chosen, and if not, why."""

    why: str | None
    """The same words for the same reason, so that reasons can be counted; None for a chosen trace."""
    detail: str | None = None
    """What is particular to this trace, e.g. its length."""

    @property
    def selected(self) -> bool:
        """Whether the trace was chosen."""
        return self.why is None


def draw(trace: Trace, seed: int) -> float:
    """Return a number in [0, 1) that depends on the seed and the trace's place alone."""
    place = f"{seed}\x00{trace.problem.id}\x00{trace.sample_index}"
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True)
class Known:
    """What a rule may go by, besides what the trace itself says."""

    length: int | None
    distance: float | None
    """How far the student is from it (distance.py)."""
    seed: int


Key = Callable[[Trace, Known], float | None]
"""The number that a trace is ranked by, the highest first."""
_KEYS: dict[str, Key] = {
    "first": lambda _trace, _known: 0.0,
    "best": lambda trace, _known: score_of(trace),
    "shortest": lambda _trace, known: None if known.length is None else -float(known.length),
    "random": lambda trace, known: draw(trace, known.seed),
    "nearest": lambda _trace, known: None if known.distance is None else -known.distance,
    "farthest": lambda _trace, known: known.distance,
}
_NEED_FORM = ("first", "shortest", "random", "nearest", "farthest")
"""Rules that choose among well-formed explanations only; a score speaks for itself."""
SCORE_RULES = ("best", "rank")
"""Rules that read scores."""
DISTANCE_RULES = ("nearest", "farthest")
"""Rules that read how far the student is from a trace."""


def select(
    traces: Sequence[Trace],
    lengths: Sequence[int | None],
    settings: SelectSettings,
    seed: int,
    refused: Mapping[int, Decision] | None = None,
) -> list[Decision]:
    """Return the decision about each trace, in their order.

    `lengths` are tokens of the student's whole sequence, read where settings.max_length is set; None where
    they are not known, or there is no explanation. `refused` are decided beforehand, by their place.
    """
    unusable = [
        _unusable(trace, length, settings) or (refused or {}).get(place)
        for place, (trace, length) in enumerate(zip(traces, lengths, strict=True))
    ]
    if settings.rule == "none":
        return [reason or Decision(None) for reason in unusable]
    if settings.rule == "rank":
        places = rank_traces(traces, [score_of(trace) for trace in traces])
        ranked = [_in_bucket(t, place.rank, settings) for t, place in zip(traces, places, strict=True)]
        return [reason or decision for reason, decision in zip(unusable, ranked, strict=True)]
    key = _KEYS[settings.rule]
    usable = [i for i, reason in enumerate(unusable) if reason is None]
    measure = measure_of(traces)
    keys = [key(traces[i], Known(lengths[i], distance_of(traces[i], measure), seed)) for i in usable]
    places = rank_traces([traces[i] for i in usable], keys)
    winners = {
        traces[i].problem.id: traces[i] for i, place in zip(usable, places, strict=True) if place.selected
    }
    decided = {
        i: _decided(traces[i], number, winners.get(traces[i].problem.id), settings.rule)
        for i, number in zip(usable, keys, strict=True)
    }
    return [reason or decided[i] for i, reason in enumerate(unusable)]


def dropped_rows(traces: Sequence[Trace], decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Return problem_id, sample_index, why and detail of every trace that was not chosen."""
    return [
        {
            "problem_id": trace.problem.id,
            "sample_index": trace.sample_index,
            "why": decision.why,
            "detail": decision.detail,
        }
        for trace, decision in zip(traces, decisions, strict=True)
        if not decision.selected
    ]


def summarize_selection(traces: Sequence[Trace], decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return the counts of a selection; `dropped` by reason, the most frequent first.

    `distance` is how far the student is from the traces, None where the source does not say.
    """
    why = Counter(decision.why for decision in decisions if decision.why)
    problems: dict[str, set[str]] = defaultdict(set)
    for trace, decision in zip(traces, decisions, strict=True):
        problems[decision.why or ""].add(trace.problem.id)
    chosen = [trace for trace, decision in zip(traces, decisions, strict=True) if decision.selected]
    num_problems = len({trace.problem.id for trace in traces})
    selected = [decision.selected for decision in decisions]
    return {
        "problems": num_problems,
        "traces": len(traces),
        "selected": len(chosen),
        "selected_not_well_formed": sum(not is_well_formed(trace) for trace in chosen),
        "problems_without_selection": num_problems - len({trace.problem.id for trace in chosen}),
        "dropped": {
            reason: {"traces": count, "problems": len(problems[reason])}
            for reason, count in sorted(why.items(), key=lambda item: (-item[1], item[0]))
        },
        "distance": summarize_distances(traces, selected, measure_of(traces)),
    }


def _unusable(trace: Trace, length: int | None, settings: SelectSettings) -> Decision | None:
    """Return why a trace cannot be chosen, whatever the others of its problem are like."""
    if trace.explanation is None:
        return Decision(NO_EXPLANATION)
    if settings.max_length is not None and length is not None and length > settings.max_length:
        return Decision(f"longer than {settings.max_length} tokens", f"{length} tokens")
    if settings.rule in _NEED_FORM and not is_well_formed(trace):
        reason = trace.problem.extra.get("finish_reason")
        return Decision(NOT_WELL_FORMED, f"finish_reason {reason}" if reason else None)
    return None


def _in_bucket(trace: Trace, rank: int | None, settings: SelectSettings) -> Decision:
    first, last = settings.rank_bucket
    if rank is None:
        return Decision(RESERVED)
    if score_of(trace) is None:
        return Decision(NO_SCORE, _said(trace))
    return Decision(None) if first <= rank <= last else Decision(OUTSIDE, f"rank {rank}")


def _decided(trace: Trace, number: float | None, winner: Trace | None, rule: str) -> Decision:
    """Return the decision about a trace that could have been chosen."""
    if trace is winner:
        return Decision(None)
    if trace.is_fallback:
        return Decision(RESERVED)
    if number is None:
        return Decision(NO_DISTANCE if rule in DISTANCE_RULES else NO_SCORE, _said(trace))
    assert winner is not None, "a trace with a number is ranked, so one of its problem is chosen"
    return Decision(ANOTHER, f"sample_index {winner.sample_index}")


def _said(trace: Trace) -> str | None:
    """Return why there is no score, where the source says so."""
    why = trace.problem.extra.get("why")
    return why if isinstance(why, str) else None
