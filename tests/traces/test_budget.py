"""A context budget, worked out by hand."""

import random

import pytest

from rlt.errors import DataError
from rlt.records import Problem, Trace
from rlt.traces.budget import Budget, Unserved, make_plan, plan_tables, recollect_rows
from rlt.traces.trace_lengths import Length


def trace(problem: str, index: int, text: str | None = "t", **said) -> Trace:
    return Trace(Problem(problem, f"{problem}?", "s", extra=said), index, text)


# problem: (tokens around, tokens of the explanation)
ROWS = [
    (trace("a", 0), Length(10, 20)),  # 30
    (trace("a", 1), Length(10, 90)),  # 100
    (trace("b", 0), Length(10, 60)),  # 70
    (trace("b", 1, selected=False), Length(10, 40)),  # 50, left out
    (trace("c", 0, well_formed=False), Length(20, 10)),  # 30, but cut off
    (trace("d", 0), Length(60, 5)),  # 65: no room within 50
    (trace("e", 0), Length(10, 41)),  # 51
    (trace("e", 1, None), Length(10, None)),
]


def plan(rows=ROWS, max_length=50, cutoffs=(30, 100)):
    return make_plan([t for t, _ in rows], [n for _, n in rows], max_length, cutoffs)


def test_rows_and_problems_by_cutoff():
    made = plan()
    # rows that are trained on: 30, 100, 70, 30 (malformed), 65, 51
    assert (made.rows, made.problems, made.left_out, made.not_well_formed) == (6, 5, 2, 1)
    assert made.budgets == [
        Budget(30, rows_over=4, problems_with_one=1, problems_to_choose=1, problems_without=4),
        # a: 30 fits, but its other row does not; b: the one that was skipped fits
        Budget(50, rows_over=4, problems_with_one=2, problems_to_choose=2, problems_without=3),
        Budget(100, rows_over=0, problems_with_one=4, problems_to_choose=0, problems_without=1),
    ]


def test_what_is_to_be_collected_again_and_what_leaves_no_room():
    made = plan()
    assert made.to_collect == [
        Unserved("c", 1, "c?", "20 tokens without an explanation, and none of 1 is well-formed"),
        Unserved(
            "e", 2, "e?", "10 tokens without an explanation, 51 with the shortest of 1 well-formed ones"
        ),
    ]
    assert made.no_room == [
        Unserved("d", 1, "d?", "60 tokens without an explanation, 65 with the shortest of 1 well-formed ones")
    ]
    assert [(row["problem_id"], row["sample_index"]) for row in recollect_rows(made, 2)] == [
        ("c", 1),
        ("c", 2),
        ("e", 2),
        ("e", 3),
    ]
    assert plan(max_length=61).no_room == []
    assert [problem.problem_id for problem in plan(max_length=61).to_collect] == ["c", "d"]
    assert [problem.problem_id for problem in plan(max_length=60).no_room] == ["d"]


def test_lengths():
    made = plan()
    assert made.mean == pytest.approx(346 / 6)
    assert made.quantiles == {
        "0%": 30, "25%": 30, "50%": 51, "75%": 70, "90%": 100, "95%": 100, "99%": 100, "100%": 100,
    }  # fmt: skip
    assert sum(rows for _, _, rows in made.histogram) == 6
    width = 6  # 101 places in 20 bins
    assert made.histogram[5] == (5 * width, 6 * width - 1, 2)  # both rows of 30
    assert made.histogram[16] == (16 * width, 17 * width - 1, 1)


def test_the_order_of_the_rows_does_not_matter():
    shuffled = list(ROWS)
    random.Random(1).shuffle(shuffled)
    assert plan(shuffled) == plan()


def test_tables_hold_every_number():
    (_, budgets), (title, quantiles), (_, bins), (_, padding) = plan_tables(plan())
    assert budgets[2] == ["50", "4", "66.7 %", "2", "2", "3"]
    assert title == "Lengths (mean 58)"
    assert quantiles[3] == ["50%", "51"]
    assert bins[6][:3] == ["30-35", "2", "33.3 %"]
    assert bins[-1][2] == "100.0 %"
    assert len(bins[6][3]) == 24
    assert [row[0] for row in padding] == ["rows", "1", "2", "4", "8"]
    assert padding[1][1] == "0.0 %"
    assert padding[4] == ["8", "13.3 %"]  # 30, 30 and four that are cut to 50, in one pass
    assert plan().packed == 6


def test_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match="none of 2 explanations is to be trained on"):
        plan([(trace("a", 0, selected=False), Length(1, 1)), (trace("a", 1, None), Length(1, None))])
