"""The world of hidden operators: right arithmetic, one pair for each question, every kind as it says."""

import random
import re

import pytest

from rlt.errors import DataError
from rlt.quickstart.hidden import (
    KINDS,
    PAIRS,
    STUDENT_KINDS,
    STUDENT_LESSONS,
    all_questions,
    announced,
    classify,
    direct,
    draw_questions,
    draw_row,
    easy,
    explain,
    hide,
    make_world,
    search,
    short,
    show_first,
    show_second,
    solve,
)

QUESTION = "7?9?3=5"
# 7+9 = 16 -> 6: 6+3 = 9, 6-3 = 3, 6*3 = 18 -> 8;  7-9 = -2 -> 8: 8+3 = 11 -> 1, 8-3 = 5, the target
# the target taken away: 9-5 = 4, 3-5 = -2 -> 8, 8-5 = 3, 1-5 = -4 -> 6, 5-5 = 0, the end
SEARCH = "7+9=6,6+3=9-5=4,6-3=3-5=8,6*3=8-5=3\n7-9=8,8+3=1-5=6,8-3=5-5=0"


def test_a_worked_question():
    assert solve(QUESTION) == "5"  # ++ is 1, +- 2, +* 3, -+ 4, -- 5
    assert search(QUESTION) == SEARCH
    assert direct(QUESTION) == "7-9=8,8-3=5"
    assert direct(QUESTION, "*+") == "7*9=3,3+3=6"  # 63 -> 3
    assert short(QUESTION) == "7+9=6:938\n7-9=8:15"
    assert announced(QUESTION) == "The signs are - and -."
    assert easy(QUESTION) == "7-9=8,8+3=1-5=6,8-3=5-5=0"
    assert (show_first(QUESTION), show_second(QUESTION)) == ("7-9?3=5", "7?9-3=5")
    assert hide("7-9?3=5") == hide("7?9-3=5") == hide(QUESTION) == QUESTION


def test_exactly_one_pair_fits_every_question():
    # counted by Python's own arithmetic, with none of the module's
    for question, pair in list(all_questions().items())[::7]:
        a, b, c, target = re.findall("[0-9]", question)
        fit = [
            first + second
            for first, second in (tuple(pair) for pair in PAIRS)
            if eval(f"((({a}{first}{b}) % 10){second}{c}) % 10") == int(target)
        ]
        assert fit == [pair]


def test_a_question_with_two_pairs_is_none():
    # 2+2 = 2*2, so 2?2?1=5 is solved by ++ and *+
    assert "2?2?1=5" not in all_questions()


@pytest.mark.parametrize(
    ("explanation", "kind"),
    [
        (SEARCH, "search"),
        (f"\n\n{SEARCH}\n\n", "search"),
        ("7-9=8,8-3=5", "direct"),
        ("7+9=6,6+3=9", "faulty"),
        (SEARCH.replace("6*3=8", "6*3=7"), "faulty"),
        ("7+9=6:938\n7-9=8:15", "short"),
        ("The signs are - and -.", "announced"),
        ("The signs are - and -. This is easy.", "padded"),
        ("The signs are + and -.", "misannounced"),
        ("This is easy.", "vague"),
        ("", "vague"),
    ],
)
def test_explanations_are_classified(explanation: str, kind: str):
    assert classify(QUESTION, explanation) == kind


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_explanation_is_of_its_kind(kind: str):
    rng = random.Random(0)
    questions = draw_questions(rng)
    for _ in range(300):
        question = next(questions)
        found = classify(question, explain(question, kind, rng))
        # the first pair is searched in the two steps that it is known in; an error may happen to do no harm
        also = {"direct": {"search"} if solve(question) == "1" else set(), "faulty": {"search"}}
        assert found in {kind} | also.get(kind, set())


def test_a_guess_is_consistent_and_mostly_wrong():
    rng = random.Random(0)
    rows = [draw_row(QUESTION, rng, {"guess": 1.0}) for _ in range(900)]
    for row in rows[:50]:
        assert row.reasoning_trace == direct(QUESTION, PAIRS[int(row.solution) - 1])
    right = sum(row.solution == solve(QUESTION) for row in rows)
    assert right == pytest.approx(100, abs=4 * (900 * 1 / 9 * 8 / 9) ** 0.5)  # 1 of 9, four standard errors


def test_shares_are_shares():
    for shares in (KINDS, STUDENT_KINDS, STUDENT_LESSONS):
        assert sum(shares.values()) == pytest.approx(1.0)


def test_a_seed_decides_the_world_and_held_out_problems_are_apart():
    world = make_world(3, num_train=500, num_held_out=50)
    assert world == make_world(3, num_train=500, num_held_out=50)
    assert world != make_world(4, num_train=500, num_held_out=50)
    train, held_out = ({row.question for row in rows} for rows in (world.train, world.held_out))
    assert (len(train), len(held_out)) == (500, 50)
    assert not train & held_out


def test_more_problems_than_there_are_is_one_sentence():
    with pytest.raises(DataError, match=r"this toy world has 3338 problems .* got 3338 to train on and 5"):
        make_world(0, num_train=3338, num_held_out=5)
