"""Tables of the real model's runs against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers.scored_rows import row, write_rows

from rlt.errors import DataError
from rlt.real_model.results import (
    against_first,
    by_problem,
    changes,
    kinds,
    rank_correlation,
    ranks,
    read_rows,
    share_of_right_sums,
    ways,
)


def test_the_answer_alone_has_the_higher_r_ss_and_the_lower_reward():
    rows = [
        *(row("a", 0, -3.0, 6.0), row("a", 1, -4.0, 7.0), row("a", 2, -3.5, 3.0), row("a", 3, -2.0, 13.0)),
        *(row("b", 0, -2.0, 5.0), row("b", 1, -3.0, 9.0), row("b", 2, -2.5, 4.0), row("b", 3, -1.0, 13.0)),
    ]
    own, other, vague, answer = kinds(rows)
    assert (own.r_ss, own.r_kl, own.reward, own.difference) == (-2.5, 5.5, -8.0, None)
    assert (answer.r_ss, answer.r_kl, answer.reward) == (-1.5, 13.0, -14.5)
    assert (answer.above_by_r_ss, answer.above_by_reward) == (2, 0)
    assert (other.above_by_r_ss, other.above_by_reward) == (0, 0)
    assert (vague.above_by_r_ss, vague.above_by_reward) == (0, 2)
    # -15 + 9 = -6 and -14 + 7 = -7; Student's t for one degree of freedom is 12.706, the error 0.5
    assert answer.difference is not None
    assert answer.difference.mean == pytest.approx(-6.5)
    assert answer.difference.high == pytest.approx(-6.5 + 12.706 * 0.5, abs=1e-3)


def test_changes_average_the_samples_of_a_problem_first():
    before = [row("a", 0, -4.0, 1.0), row("a", 1, -2.0, 1.0), row("b", 0, -1.0, 1.0)]
    after = [row("a", 0, -1.0, 1.0), row("b", 0, -1.0, 1.0, "So, 36 and 36.", well_formed=False)]
    found = changes(before, after)
    assert (found["r_SS"].before, found["r_SS"].after) == (-2.0, -1.0)  # not the mean of three rows, -2.33
    assert found["r_SS"].difference.mean == 1.0
    assert (found["closes its tag"].before, found["closes its tag"].after) == (1.0, 0.5)
    assert (found["names the solution"].before, found["names the solution"].after) == (1.0, 0.5)
    assert found["r_SS"].num_problems == 2


@pytest.mark.parametrize(
    ("explanation", "named"),
    [("It is 72.", 1), ("172 or 720", 0), ("7.2", 0), ("She has $72", 1), ("3+69=72", 1), ("", 0)],
)
def test_a_number_is_named_as_a_whole(explanation, named):
    pair = [row("a", 0, -1, 1, explanation), row("b", 0, -1, 1, explanation)]
    assert changes(pair, pair)["names the solution"].after == named


def test_a_measure_that_is_not_defined_leaves_its_problem_out():
    one_digit = [row(p, 0, -1, 1, "It is 7.", solution="7") for p in "ab"]
    assert "states the solution first" not in changes(one_digit, one_digit)
    mixed = [*one_digit, row("c", 0, -1, 1), row("d", 0, -1, 1)]
    assert changes(mixed, mixed)["states the solution first"].num_problems == 2
    assert by_problem(mixed, lambda _: None) == {}


def test_ranks_by_hand(tmp_path):
    write_rows(tmp_path / "likelihood_base/scores.jsonl", [row("a", 0, -3.0, 6.0), row("b", 0, -5.0, 9.0)])
    for rank in (1, 2, 3, 4):
        traces = [{"score": -rank, "selected": True}, {"score": -99, "selected": False}]
        write_rows(tmp_path / f"rank_{rank}/traces.jsonl", traces)
        write_rows(
            tmp_path / f"likelihood_{rank}/scores.jsonl", [row("a", 0, -rank, 3.0), row("b", 0, -rank, 6.0)]
        )
    found = ranks(tmp_path)
    assert [one.reward for one in found] == [-1, -2, -3, -4]
    assert found[0].gains["solution"].mean == pytest.approx(3.0)  # -1 - (-4)
    assert found[3].gains["solution"].mean == pytest.approx(0.0)
    assert found[0].gains["working"].mean == pytest.approx(1.0)  # (9 - 6) / 3 and (6 - 3) / 3


@pytest.mark.parametrize(
    ("explanation", "share"),
    [
        ("12 * 10 = 120 bottles", 1.0),
        ("He pays $1,072 + $3 = $1,075.", 1.0),
        ("1/3=0.33, and 211 - 65 = 81 heads", 0.5),
        ("20*15=200\n6 x 3 = 18\n8/0=8\n5 - 5 = 0", 0.5),
        ("1+2+3=6 and 2 * 3 = 4 + 2", None),  # no sums of two numbers
        ("20% of 5 is 1", None),
    ],
)
def test_right_sums_by_hand(explanation, share):
    assert share_of_right_sums(explanation) == share


def test_ways_by_hand(tmp_path):
    write_rows(tmp_path / "start/scores.jsonl", [row(p, 0, -3.0, 6.0) for p in "ab"])
    for seed, r_ss in (("seed_0", -2.0), ("seed_1", -1.0)):
        for student in ("sft", "half", "opd", "both"):
            scores = [row("a", 0, r_ss, 6.0), row("b", 0, r_ss - 1, 3.0)]
            write_rows(tmp_path / f"{seed}/likelihood_{student}/scores.jsonl", scores)
        for step in ("traces", "half_traces", "sft", "half", "opd", "both"):
            record: dict = {"status": "finished", "seconds": 60.0}
            if "traces" in step:
                record |= {
                    "stage": "collect_traces",
                    "results": {"tokens": 4000 if step == "traces" else 1000},
                }
            (tmp_path / seed / step).mkdir()
            (tmp_path / seed / step / "run.json").write_text(json.dumps(record))
    write_rows(
        tmp_path / "seed_0/opd/metrics.jsonl", [{"step": 1, "time": 9, "completions/total_tokens": 500}]
    )
    write_rows(
        tmp_path / "seed_1/both/metrics.jsonl", [{"step": 1, "time": 9, "completions/total_tokens": 300}]
    )
    found = ways(tmp_path / "start", [tmp_path / "seed_0", tmp_path / "seed_1"])
    assert [one.tokens for one in found] == [4000, 1000, 250, 1150]
    assert [one.seconds for one in found] == [120, 120, 60, 180]
    solution, working = found[0].gains["solution"], found[0].gains["working"]
    assert solution.mean == pytest.approx(1.0)  # a: -1.5 - -3, b: -2.5 - -3
    assert working.mean == pytest.approx(0.5)  # a third of r_KL: 0 and 1
    assert found[0].by_seed["solution"] == pytest.approx([0.5, 1.5])
    found[2].by_seed["solution"] = [
        1.5,
        2.0,
    ]  # 1 and 0.5 more
    gap = against_first(found, "solution")[found[2].name]
    assert (gap.mean, gap.high - gap.mean) == pytest.approx((0.75, 12.7062 * 0.25), rel=1e-5)


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 25, 90]) == pytest.approx(1.0)
    # one swap of neighbours among four: 1 - 6 * 2 / (4 * 15)
    assert rank_correlation([4, 3, 2, 1], [9, 7, 8, 1]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 2, 3], [5, 6, 6, 7]) == pytest.approx(1.0)
    assert math.isnan(rank_correlation([1, 2, 3], [5, 5, 5]))


def test_an_explanation_without_a_score_is_named(tmp_path):
    path: Path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps(row("a", 1, -1, 1) | {"score": None, "why": "too long"}) + "\n")
    with pytest.raises(DataError, match=r"explanation 1 of problem a has no score \(too long\)"):
        read_rows(path)
