"""The toy world: right arithmetic, kinds in their shares, held-out problems apart, everything seeded."""

import json
import random

import pytest

from rlt.errors import DataError
from rlt.quickstart.world import (
    KINDS,
    classify,
    draw_questions,
    draw_row,
    explain,
    make_world,
    solve,
    stepwise,
)


def test_a_chain_is_read_from_left_to_right():
    # 7*9 = 63 -> 3; 3+7 = 10 -> 0; 0*3 = 0; 0+4 = 4
    assert stepwise("7*9+7*3+4") == "7*9=3\n3+7=0\n0*3=0\n0+4=4"
    assert solve("7*9+7*3+4") == "4"
    # not 2+3*4 = 14 -> 4, but (2+3)*4 = 20 -> 0
    assert solve("2+3*4") == "0"


def test_an_error_travels_on():
    # second step off by two: 3+7 = 0 becomes 2, then 2*3 = 6, 6+4 = 0
    assert stepwise("7*9+7*3+4", {1: 2}) == "7*9=3\n3+7=2\n2*3=6\n6+4=0"


@pytest.mark.parametrize(
    ("explanation", "kind"),
    [
        ("7*9=3\n3+7=0\n0*3=0\n0+4=4", "good"),
        ("\n\n7*9=3\n3+7=0\n0*3=0\n0+4=4\n\n", "good"),
        ("7*9=3\n3+7=2\n2*3=6\n6+4=0", "faulty"),
        ("7*9=3\n3+7=0\n0*3=0", "faulty"),  # a step is missing
        ("7*9=3, and so on.", "faulty"),
        ("The rest is clear.", "vague"),
        ("The solution is 4.", "vague"),
        ("", "vague"),
    ],
)
def test_explanations_are_classified(explanation: str, kind: str):
    assert classify("7*9+7*3+4", explanation) == kind


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_explanation_is_of_its_kind(kind: str):
    rng = random.Random(0)
    questions = draw_questions(rng)
    for _ in range(300):
        question = next(questions)
        assert classify(question, explain(question, kind, rng)) == kind


def test_kinds_come_in_their_shares():
    rng = random.Random(0)
    questions = draw_questions(rng)
    kinds = [draw_row(next(questions), rng, KINDS).kind for _ in range(4000)]
    for kind, share in KINDS.items():
        # four standard errors of a share of 4,000 draws
        assert kinds.count(kind) / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_a_seed_decides_the_world_and_held_out_problems_are_apart():
    world = make_world(3, num_train=500, num_held_out=50)
    assert world == make_world(3, num_train=500, num_held_out=50)
    assert world != make_world(4, num_train=500, num_held_out=50)
    train, held_out = ({row.question for row in rows} for rows in (world.train, world.held_out))
    assert (len(train), len(held_out)) == (500, 50)
    assert not train & held_out


def test_files_hold_the_rows(tmp_path):
    world = make_world(0, num_train=5, num_held_out=2)
    world.write(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert rows[0].keys() == {"question", "solution", "reasoning_trace", "kind"}
    assert rows[0]["solution"] == solve(rows[0]["question"])
    assert len((tmp_path / "held_out.jsonl").read_text().splitlines()) == 2


def test_more_problems_than_there_are_is_one_sentence():
    with pytest.raises(DataError, match="got 100000 to train on and 5 held out"):
        make_world(0, num_train=100_000, num_held_out=5)
