"""Ranks, best-of-n and the table by rank, by hand."""

import pytest

from rlt.records import Problem, Trace
from rlt.traces.rank import bucket_rows, rank_buckets, rank_traces, summarize


def traces(*fallbacks: bool, problem: str = "p", start: int = 0) -> list[Trace]:
    question = Problem(problem, "q", "s")
    return [Trace(question, start + i, f"t{i}", is_fallback=f) for i, f in enumerate(fallbacks)]


def ranks(places):
    return [place.rank for place in places]


def selected(places):
    return [i for i, place in enumerate(places) if place.selected]


def test_ranks_by_score_then_by_place_and_without_a_score_last():
    places = rank_traces(traces(False, False, False, False, False), [-2.0, None, -1.0, -2.0, -0.5])
    assert ranks(places) == [3, 5, 2, 4, 1]
    assert selected(places) == [4]


def test_ties_go_by_the_number_and_not_by_the_order_of_rows():
    late_first = [*traces(False, start=7), *traces(False, start=2)]
    places = rank_traces(late_first, [-1.0, -1.0])
    assert ranks(places) == [2, 1]
    assert selected(places) == [1]


def test_each_problem_has_its_own_ranks():
    mixed = [
        *traces(False, problem="a"),
        *traces(False, False, problem="b"),
        *traces(False, problem="a", start=1),
    ]
    places = rank_traces(mixed, [-3.0, -1.0, -2.0, -1.0])
    assert ranks(places) == [2, 1, 2, 1]
    assert selected(places) == [1, 3]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_fallback_is_never_ranked_and_loses_to_any_score(place):
    group = traces(*(i == place for i in range(3)))
    scores = [-5.0, -6.0, -7.0]
    scores[place] = 9.0
    places = rank_traces(group, scores)
    best = min(i for i in range(3) if i != place)
    assert places[place].rank is None
    assert selected(places) == [best]
    assert sorted(rank for rank in ranks(places) if rank) == [1, 2]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("own", [None, -4.0])
def test_a_fallback_is_chosen_where_no_other_has_a_score(place, own):
    group = traces(*(i == place for i in range(3)))
    scores = [None, None, None]
    scores[place] = own
    assert selected(rank_traces(group, scores)) == [place]


def test_without_a_score_and_a_fallback_none_is_chosen():
    assert selected(rank_traces(traces(False, False), [None, None])) == []


def row(rank, score, tokens, selected=False):
    breakdown = None if score is None else {"r_ss": score + 1, "r_kl": 1.0}
    return {
        "rank": rank,
        "score": score,
        "breakdown": breakdown,
        "num_tokens": tokens,
        "selected": selected,
        "is_fallback": False,
    }


def test_buckets_share_out_the_ranks():
    rows = [row(1, -1.0, 10), row(2, -2.0, 20), row(3, -4.0, 30), row(1, -3.0, 30), row(2, None, 99)]
    (first, second) = rank_buckets(rows, 2)  # 3 ranks: 1, then 2 and 3
    assert (first.first_rank, first.last_rank, first.count) == (1, 1, 2)
    assert (first.score, first.r_ss, first.r_kl, first.num_tokens) == (-2.0, -1.0, 1.0, 20)
    assert (second.first_rank, second.last_rank, second.count) == (2, 3, 2)
    assert (second.score, second.num_tokens) == (-3.0, 25)
    assert len(rank_buckets(rows, 10)) == 3


def test_summary_and_table():
    rows = [row(1, -1.0, 10, selected=True), row(2, None, 5)]
    summary = summarize(traces(False, False), rows, 4)
    assert (summary["problems"], summary["traces"], summary["scored"], summary["selected"]) == (1, 2, 1, 1)
    assert summary["problems_without_selection"] == 0
    assert bucket_rows(rank_buckets(rows, 4))[1] == [
        "1",
        "1",
        "-1",
        "0",
        "1",
        "10",
    ]
    assert summarize(traces(False), [row(1, None, 5)], 4)["buckets"] == []


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_several_fallbacks_the_lowest_number_counts_in_any_order_of_rows(order):
    group = traces(True, True)
    assert [order[i] for i in selected(rank_traces([group[i] for i in order], [None, None]))] == [0]
