"""The numbers of a task against enumeration, and by hand."""

from itertools import combinations
from statistics import mean

import pytest

from rlt.evaluation.summary import majority_is_right, pass_at, summarize
from rlt.tasks.math_grader import MathGrader


def rows(*problems, task="t"):
    """Return the samples of problems, each given as what its samples answered; `4` is right."""
    return [
        {
            "task": task,
            "problem_id": str(i),
            "extracted": answer,
            "correct": answer == "4",
            "correct_skythought": answer in ("4", "5"),
            "rule": "boxed" if answer else "none",
            "why": None if answer else "cut",
            "finish_reason": "stop" if answer else "length",
            "num_tokens": 10 * (i + 1),
        }
        for i, answers in enumerate(problems)
        for answer in answers
    ]


def test_numbers_by_hand():
    numbers = summarize(rows("4455", ["4", None, "5", "5"], "4444"))["t"]
    # problems 1/2, 1/4, 1: mean 7/12, variance 7/48, standard error sqrt(7/144)
    assert numbers["accuracy"] == pytest.approx(7 / 12)
    assert numbers["standard_error"] == pytest.approx(7**0.5 / 12)
    # As 3 problems with 7/4 right: stats.beta.ppf([0.025, 0.975], [7/4, 11/4], [9/4, 5/4]) of scipy 1.17
    assert numbers["interval_95"] == pytest.approx([0.06332135082316297, 0.9795227571191751], abs=1e-8)
    assert len(numbers["interval_95_skythought"]) == len(numbers["interval_95_majority"]) == 2
    assert list(numbers["interval_95_pass_at"]) == ["1", "2", "4"]
    assert numbers["interval_95_pass_at"]["1"] == numbers["interval_95"]
    assert (numbers["num_problems"], numbers["num_samples"], numbers["samples_per_problem"]) == (3, 12, 4)
    assert numbers["truncated"] == numbers["no_answer"] == pytest.approx(1 / 12)
    assert numbers["well_formed"] == pytest.approx(11 / 12)
    assert numbers["tokens"] == {"mean": 20, "median": 20, "max": 30}
    assert numbers["rules"] == {"boxed": 11, "none": 1}
    assert numbers["accuracy_skythought"] == pytest.approx(11 / 12)
    assert numbers["majority"] == pytest.approx(2 / 3)  # a tie goes to the answer that came first
    assert list(numbers["pass_at"]) == ["1", "2", "4"]
    assert numbers["pass_at"]["1"] == pytest.approx(numbers["accuracy"])


def test_what_is_not_graded_whole_and_groups_are_counted():
    graded = rows("4455", ["4", None, "5", "5"], "4444")
    for row in graded:
        row["groups"] = {"level": "5" if row["problem_id"] == "2" else "1"}
    graded[-1]["undecided"] = True
    numbers = summarize(graded)["t"]
    assert (numbers["cut"], numbers["undecided"]) == (1, 1)
    assert list(numbers["groups"]["level"]) == ["1", "5"]
    assert numbers["groups"]["level"]["1"]["accuracy"] == pytest.approx(3 / 8)
    assert (numbers["groups"]["level"]["1"]["num_problems"], numbers["groups"]["level"]["1"]["cut"]) == (2, 1)
    assert numbers["groups"]["level"]["5"]["interval_95"] is None
    assert summarize(rows("4"))["t"]["groups"] == {}


def test_tasks_are_apart_and_one_problem_has_no_error():
    both = summarize(rows("4", task="a") + rows("5", "4", task="b"))
    assert list(both) == ["a", "b"]
    assert (both["a"]["accuracy"], both["a"]["standard_error"], both["a"]["interval_95"]) == (1, None, None)
    assert both["b"]["accuracy"] == 0.5


def test_nothing_right_is_no_certainty():
    """Of 30 problems none is right: with more than 11.6 % right that happens in less than one of 40 times."""
    low, high = summarize(rows(*["5"] * 30))["t"]["interval_95"]
    assert low == 0
    assert (1 - high) ** 30 == pytest.approx(0.025)
    assert high == pytest.approx(0.1157, abs=1e-4)
    assert summarize(rows(*["4"] * 30))["t"]["interval_95"] == pytest.approx([1 - high, 1])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_all_choices(k):
    answers = ["45555", "44445", "55555", "44444", "54545"]
    exact = mean(any(a == "4" for a in chosen) for p in answers for chosen in combinations(p, k))
    problems = [rows(p) for p in answers]
    assert pass_at(k, problems) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("answers", "right"),
    [("445", True), ("455", False), ("54", False), ("45", True), ([None, None, "4"], True), ([None], False)],
)
def test_majority(answers, right):
    assert majority_is_right(rows(answers)) is right


def test_a_majority_may_write_one_answer_in_several_ways():
    answers = ["5", "5", r"\frac{8}{2}", "4.0", "4"]
    samples = [{**row, "correct": row["extracted"] != "5"} for row in rows(answers)]
    assert majority_is_right(samples)


def test_answers_that_the_grader_calls_equal_vote_together():
    """Three right answers in three writings against two of one wrong one; before, the wrong one won."""
    answers = ["3", "3", "x=4", "4", r"4\text{ cm}"]
    samples = [{**row, "correct": row["extracted"] != "3"} for row in rows(answers)]
    assert majority_is_right(samples)
    wrong = [
        {**row, "correct": row["extracted"] == "7"} for row in rows(["7", "7", "x=4", "4", r"4\text{ cm}"])
    ]
    assert not majority_is_right(wrong)


def test_what_takes_algebra_is_asked_of_the_grader():
    answers = ["7", "7", r"\sqrt{8}", r"2\sqrt{2}", r"\frac{4}{\sqrt{2}}"]
    samples = [{**row, "correct": row["extracted"] == "7"} for row in rows(answers)]
    with MathGrader(seconds=100, most_children=1) as grader:
        assert not majority_is_right(samples, grader.grade)
    assert majority_is_right(samples)
