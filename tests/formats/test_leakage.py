"""Copied and given-away solutions, by texts whose words can be counted."""

from __future__ import annotations

import json

import pytest

from rlt.formats.leakage import copied_share, states_first

TEN = "one two three four five six seven eight nine ten"  # three sequences of eight


@pytest.mark.parametrize(
    ("explanation", "share"),
    [
        (TEN, 1),
        ("So: **One** two,\n\nthree four five six seven eight - and so on.", 1 / 3),
        ("zero " + TEN.replace("ten", "eleven"), 2 / 3),
        ("one two three four five six seven, then eight nine ten", 0),
        (f"{TEN} {TEN}", 1),
        ("", 0),
    ],
)
def test_share_of_the_sequences(explanation: str, share: float):
    assert copied_share(TEN, explanation) == pytest.approx(share)


def test_a_repeated_sequence_counts_once():
    # "a b a b a b": the sequences of two are (a b) and (b a)
    assert copied_share("a b a b a b", "then a b", n=2) == 0.5


def test_seven_words_are_too_short_for_sequences_and_eight_are_not():
    assert copied_share("one two three four five six seven", TEN) is None
    assert states_first("?", "one two three four five six seven", TEN) is True
    assert copied_share("one two three four five six seven eight", TEN) == 1
    assert states_first("?", "one two three four five six seven eight", TEN) is None


@pytest.mark.parametrize(
    ("explanation", "is_first"),
    [
        ("72", True),
        ("It is #### 72. " + "Because of this and that. " * 3, False),  # 2 words before, of 18
        ("It is #### 72. " + "Because of this and that. " * 4, True),  # 2 words before, of 23
        ("48/2=24 and 48+24=72", False),
        ("172 and 720 " * 20, False),
        ("", False),
    ],
)
def test_a_short_solution_stated_first(explanation: str, is_first: bool):
    assert states_first("How many clips?", "#### 72", explanation) is is_first


def test_short_solutions_that_tell_nothing():
    assert states_first("Which one?", "B", "B is right") is None
    assert states_first("Is 72 even?", "72", "72 is even") is None
    assert states_first("Which one?", "", "any") is None


def test_honest_traces_stay_low(shared):
    rows = [json.loads(line) for line in (shared / "data" / "gsm8k_test.jsonl").read_text().splitlines()]
    first = [states_first(r["question"], r["solution"], r["reasoning_trace"]) for r in rows]
    judged = [value for value in first if value is not None]
    assert len(judged) > 1000
    assert sum(judged) / len(judged) < 0.01
    row = next(r for r in rows if len(r["reasoning_trace"].split()) > 40)
    assert copied_share(row["reasoning_trace"], row["reasoning_trace"]) == 1
