"""Shared text is found where it was planted, and not where only numbers or usual wording agree."""

from __future__ import annotations

import json

import pytest

from rlt.data.decontaminate import QuestionIndex, first_of_each, questions_of
from rlt.data.text_match import words_of
from rlt.errors import DataError

LONG = (
    "A farmer keeps hens in three old barns near the river, and each morning she gathers twelve eggs from "
    "every barn before the bus leaves at noon. How many eggs does she gather in a week?"
)
MIDDLE = "Find the largest prime divisor of 1,001 and its square."  # ten words
SHORT = "Compute $7+3\\cdot 2$."


def find(question: str, solution: str = "1", **benchmarks: list[str]) -> list[tuple[str, int]]:
    index = QuestionIndex(benchmarks or {"set": ["Another question.", LONG, MIDDLE, SHORT]})
    return [(hit.benchmark, hit.question) for hit in index.hits(question, solution)]


def test_words_by_hand():
    words = words_of("Let $x^2+1{,}000$: “Naïve” 3-digit\nNUMBERS, 1,001 x_1")
    assert " ".join(words) == "let x 2 1 000 naïve 3 digit numbers 1001 x 1"
    assert words_of("求解 x=2") == ["求", "解", "x", "2"]
    assert words_of("cafe\u0301 ﬁne") == ["café", "fine"]


@pytest.mark.parametrize(
    ("planted", "place"),
    [
        (LONG, 2),
        (LONG.upper(), 2),
        (LONG.replace(",", "").replace(".", " ,"), 2),
        ("Return your answer in a box. " + LONG + " Think first.", 2),
        (" ".join(LONG.split()[4:17]), 2),  # thirteen words from its middle
        ("Hint: " + MIDDLE.replace("1,001", "$1001$"), 3),
        (SHORT, 4),
        ("  compute  $7+3\\cdot 2$. ", 4),
    ],
)
def test_planted_questions_are_found(planted, place):
    assert find(planted) == [("set", place)]


@pytest.mark.parametrize(
    "other",
    [
        " ".join(LONG.split()[4:16]),  # twelve words
        " ".join([*LONG.split()[4:10], "quietly", *LONG.split()[10:16]]),
        MIDDLE.replace("square", "cube"),
        "Compute $7-3\\cdot 2$.",  # other signs
        "Compute $7+3\\cdot 2$ and double it.",
        "",
    ],
)
def test_what_shares_less_is_not_found(other):
    assert find(other) == []


def test_a_question_in_the_solution_is_found():
    assert find("Another?", f"First, {LONG} Then 252.") == [("set", 2)]


def test_each_benchmark_is_named_once():
    benchmarks = {"a": [LONG], "b": ["x", LONG + " And in a year?"], "c": [MIDDLE]}
    assert find(f"{LONG} {LONG}", **benchmarks) == [("a", 1), ("b", 2)]


def test_numbers_alone_and_usual_wording_do_not_count():
    table = " ".join(map(str, range(1, 40)))
    assert find(f"Sort {table}", numbers=[f"Add up {table}"]) == []
    form = "With the numbers {} write down an expression in which each of them stands exactly once and is {}"
    asked = [form.format(f"{i} and {i + 1} and", i) for i in range(3)]
    assert find(form.format("50 and 60 and", 99), form=asked) == []
    assert find(asked[1], form=asked) == [("form", 2)]


def test_a_question_that_a_benchmark_holds_twice_is_still_found():
    assert find(LONG + " Tell me.", twice=[LONG, LONG.lower(), LONG]) == [("twice", 1)]


def test_private_words_are_not_shown():
    index = QuestionIndex({"secret": [LONG], "open": [LONG]}, private={"secret"})
    secret, shown = index.hits(LONG, "1")
    assert str(secret) == "secret, question 1"
    assert "farmer" in str(shown)


def test_repeats_by_hand():
    assert first_of_each(["a b", "c", "A  B", "c ", "d", "a+b"]) == {2: 0, 3: 1}


@pytest.mark.parametrize(
    "row",
    [
        {"problem": LONG, "solution": "s", "answer": "1"},
        {"Question": LONG, "Correct Answer": "1"},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": LONG}]},
        {"conversations": [{"from": "human", "value": LONG}, {"from": "gpt", "value": "x"}]},
    ],
)
def test_questions_of_any_usual_file(tmp_path, row, write_jsonl):
    assert questions_of(write_jsonl(tmp_path / "a.jsonl", [row])) == [LONG]


def test_a_file_without_questions_is_named(tmp_path, write_jsonl):
    with pytest.raises(DataError, match=r"a\.jsonl has the columns text, but data.decontaminate needs"):
        questions_of(write_jsonl(tmp_path / "a.jsonl", [{"text": LONG}]))
    (tmp_path / "b.jsonl").write_text('{"question": "x"}\n{"question": \n')
    with pytest.raises(DataError, match=r"b\.jsonl, line 2: not valid JSON"):
        questions_of(str(tmp_path / "b.jsonl"))


def test_gsm8k_train_against_test(shared_data):
    """Its authors split it by hand; a few questions of both parts still share their wording."""
    train, test = (
        [json.loads(line)["question"] for line in (shared_data / f"gsm8k_{part}.jsonl").open()]
        for part in ("train", "test")
    )
    index = QuestionIndex({"test": test})
    found = {place: hits for place, question in enumerate(train) if (hits := index.hits(question, ""))}
    assert 0 < len(found) < 100
    hit = next(iter(found.values()))[0]
    assert (
        hit.words in " ".join(words_of(test[hit.question - 1])) or hit.words == test[hit.question - 1].lower()
    )
    assert all(index.hits(question, "")[0].benchmark == "test" for question in test)
