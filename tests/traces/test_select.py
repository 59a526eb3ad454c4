"""Every rule by hand; for any traces: no rule depends on their order, and `best` is what rank.py chooses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlt.config.schema import SELECTION_RULES, SelectSettings
from rlt.records import Problem, Trace
from rlt.traces.columns import is_fallback, score_of
from rlt.traces.rank import rank_traces
from rlt.traces.select import draw, dropped_rows, select, summarize_selection


def trace(index: int, text: str | None = "t", *, problem: str = "p", fallback: bool = False, **said) -> Trace:
    return Trace(Problem(problem, problem, "s", extra=said), index, text, is_fallback=fallback)


GROUP = [
    trace(0, well_formed=False, finish_reason="length", score=-0.5),
    trace(1, well_formed=True, score=-3.0),
    trace(2, well_formed=True, score=-1.0),
    trace(3, well_formed=True, score=-1.0),
    trace(4, well_formed=True, why="too long: 99 tokens"),
    trace(5, None),
]
LENGTHS = [9, 50, 30, 20, 99, None]


def decide(rule: str, traces=GROUP, lengths=LENGTHS, seed=0, **changes):
    return select(traces, lengths, SelectSettings(rule=rule, **changes), seed)


def chosen(*args, **kwargs) -> list[int]:
    return [i for i, decision in enumerate(decide(*args, **kwargs)) if decision.selected]


def why(*args, **kwargs) -> list[tuple[str | None, str | None]]:
    return [(decision.why, decision.detail) for decision in decide(*args, **kwargs)]


def test_none_keeps_every_explanation_there_is():
    assert chosen("none") == [0, 1, 2, 3, 4]
    assert why("none")[5] == ("no explanation", None)


def test_first_is_the_first_that_is_well_formed():
    assert why("first") == [
        ("not well-formed", "finish_reason length"),
        (None, None),
        *[("another explanation was chosen", "sample_index 1")] * 3,
        ("no explanation", None),
    ]


def test_best_goes_by_the_score_alone_and_a_tie_by_the_number():
    assert chosen("best") == [0]
    assert why("best", GROUP[1:], LENGTHS[1:]) == [
        ("another explanation was chosen", "sample_index 2"),
        (None, None),
        ("another explanation was chosen", "sample_index 2"),
        ("no score", "too long: 99 tokens"),
        ("no explanation", None),
    ]


def test_the_shortest_is_well_formed_and_fits():
    assert chosen("shortest", max_length=60) == [3]
    assert chosen("shortest", max_length=20) == [3]
    assert why("shortest", max_length=19)[:4] == [
        ("not well-formed", "finish_reason length"),
        ("longer than 19 tokens", "50 tokens"),
        ("longer than 19 tokens", "30 tokens"),
        ("longer than 19 tokens", "20 tokens"),
    ]


def test_a_length_limit_holds_for_every_rule():
    assert chosen("none", max_length=30) == [0, 2, 3]
    assert chosen("first", max_length=30) == [2]
    assert chosen("best", GROUP[1:], LENGTHS[1:], max_length=25) == [2]
    assert chosen("rank", rank_bucket=[2, 3], max_length=25) == [3]


def test_ranks_are_those_among_all_of_the_problem():
    # by score: 0 (-0.5), then 2 and 3 (-1), 1 (-3); the others have none
    assert chosen("rank", rank_bucket=[1, 1]) == [0]
    assert chosen("rank", rank_bucket=[2, 3]) == [2, 3]
    assert chosen("rank", rank_bucket=[4, 9]) == [1]
    assert why("rank", rank_bucket=[4, 9])[0] == ("rank outside of the bucket", "rank 1")
    assert why("rank", rank_bucket=[4, 9])[4] == ("no score", "too long: 99 tokens")


def test_random_draws_each_well_formed_one_equally_often():
    counts = dict.fromkeys(range(6), 0)
    for seed in range(3000):
        (index,) = chosen("random", seed=seed)
        counts[index] += 1
    assert (counts[0], counts[5]) == (0, 0)
    # 4 candidates: 750 each; a standard deviation is sqrt(3000 * 1/4 * 3/4) = 24
    assert all(abs(counts[i] - 750) < 5 * 24 for i in (1, 2, 3, 4))
    assert draw(GROUP[1], 0) != draw(trace(1, problem="q"), 0)


@pytest.mark.parametrize("rule", ["first", "best", "shortest", "random"])
def test_a_fallback_is_chosen_only_where_no_other_can_be(rule):
    fallback = trace(0, fallback=True, score=9.0)
    other, cut = trace(1, score=-1.0), trace(1, finish_reason="length")
    limit = {"max_length": 10}
    assert chosen(rule, [fallback, other], [5, 5], **limit) == [1]
    assert why(rule, [fallback, other], [5, 5], **limit)[0] == ("reserved as a fallback", None)
    assert chosen(rule, [fallback, cut], [5, 5], **limit) == [0]
    assert chosen(rule, [fallback, cut], [11, 5], **limit) == []


def test_report_and_dropped_rows_name_everything_once():
    traces = [*GROUP, trace(0, problem="q")]
    decisions = decide("best", traces, [*LENGTHS, 1])
    summary = summarize_selection(traces, decisions)
    assert (summary["problems"], summary["traces"], summary["selected"]) == (2, 7, 1)
    assert (summary["problems_without_selection"], summary["selected_not_well_formed"]) == (1, 1)
    assert summary["dropped"] == {
        "another explanation was chosen": {"traces": 3, "problems": 1},
        "no score": {"traces": 2, "problems": 2},
        "no explanation": {"traces": 1, "problems": 1},
    }
    dropped = dropped_rows(traces, decisions)
    assert len(dropped) == 6
    assert dropped[-1] == {"problem_id": "q", "sample_index": 0, "why": "no score", "detail": None}


ANY_TRACE = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["text", "another", " ", None]),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "score": st.one_of(st.none(), st.sampled_from([-2.0, -1.0, 0.5, "-1.5", float("nan")])),
            "well_formed": st.sampled_from([True, False, None, "False"]),
            "finish_reason": st.sampled_from(["stop", "length"]),
        },
    ),
    st.integers(1, 40),
)


def numbered(drawn) -> tuple[list[Trace], list[int | None]]:
    seen: dict[str, int] = {}
    traces, lengths = [], []
    for problem, text, fallback, said, length in drawn:
        index = seen[problem] = seen.get(problem, -1) + 1
        traces.append(trace(index, text, problem=problem, fallback=fallback, **said))
        lengths.append(None if text is None else length)
    return traces, lengths


@settings(max_examples=150, deadline=None)
@given(st.data(), st.lists(ANY_TRACE, max_size=12), st.sampled_from(SELECTION_RULES))
def test_the_order_of_the_rows_changes_no_decision(data, drawn, rule):
    traces, lengths = numbered(drawn)
    limit = 20 if rule == "shortest" else data.draw(st.sampled_from([None, 20]))
    chosen_by = SelectSettings(rule=rule, max_length=limit, rank_bucket=[1, 2] if rule == "rank" else [])
    order = data.draw(st.permutations(range(len(traces))))
    decisions = select(traces, lengths, chosen_by, seed=5)
    shuffled = select([traces[i] for i in order], [lengths[i] for i in order], chosen_by, seed=5)
    assert [decisions[i] for i in order] == shuffled
    winners = [t.problem.id for t, decision in zip(traces, decisions, strict=True) if decision.selected]
    assert rule in ("none", "rank") or len(set(winners)) == len(winners)
    for t, length, decision in zip(traces, lengths, decisions, strict=True):
        assert not (decision.selected and (t.explanation is None or (limit and length > limit)))


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_TRACE, max_size=12))
def test_best_is_what_score_traces_selects(drawn):
    traces, lengths = numbered([item for item in drawn if item[1] is not None or "score" not in item[3]])
    places = rank_traces(traces, [score_of(t) for t in traces])
    assert [place.selected for place in places] == [d.selected for d in decide("best", traces, lengths)]


def test_a_fallback_of_the_source_is_one():
    assert [is_fallback(t) for t in (trace(0), trace(0, is_fallback=True), trace(0, fallback=True))] == [
        False,
        True,
        True,
    ]
