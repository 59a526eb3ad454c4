"""What each benchmark reads in a row: question, reference, order of the options. All rows are made up."""

import random

import pytest

from rlt.config.schema import BENCHMARKS as NAMES
from rlt.config.schema import SLOT
from rlt.errors import DataError
from rlt.tasks.benchmarks.catalog import BENCHMARKS
from rlt.tasks.benchmarks.task import ORDERS, order_by_row, order_by_stream

ANY = order_by_row(0)


def test_the_configuration_knows_the_same_names():
    assert tuple(BENCHMARKS) == NAMES
    assert all(task.prompt.count(SLOT) == 1 for task in BENCHMARKS.values())


@pytest.mark.parametrize(
    ("task", "row", "reference"),
    [
        ("aime24", {"problem": "p", "answer": "025", "url": "x/2024_AIME_I/1"}, "25"),
        ("aime24", {"problem": "p", "answer": 7}, "7"),
        ("aime24", {"problem": "p", "answer": "000"}, "0"),
        (
            "math500",
            {"problem": "p", "answer": r" \left( 3, \frac{\pi}{2} \right)"},
            r"\left( 3, \frac{\pi}{2} \right)",
        ),
        ("gsm8k", {"question": "p", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"}, "1024"),
        ("gsm8k", {"question": "p", "solution": "#### 18", "answer": "18"}, "18"),
        ("countdown", {"question": "p", "solution": "(1 + 2) / 3", "answer": "(1 + 2) / 3"}, "(1 + 2) / 3"),
    ],
)
def test_references(task, row, reference):
    question = BENCHMARKS[task].read(row, ANY)
    assert question.reference == reference
    assert (question.text, question.order) == ("p", None)


def test_only_2024_is_of_aime24():
    assert BENCHMARKS["aime24"].read({"problem": "p", "answer": "1", "url": "x/2023_AIME_I/1"}, ANY) is None


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("aime24", {"problem": "secret", "answer": "1000"}),
        ("aime24", {"problem": "secret", "answer": "-1"}),
        ("math500", {"problem": " ", "answer": "secret"}),
        ("gpqa_diamond", {"Question": "secret", "Correct Answer": "secret"}),
        ("countdown", {"question": "secret", "answer": "1 / 0"}),
        ("gsm8k", {"question": ["secret"], "answer": "18"}),
    ],
)
def test_a_bad_row_is_refused_without_quoting_it(task, row):
    with pytest.raises(DataError) as caught:
        BENCHMARKS[task].read(row, ANY)
    assert "secret" not in str(caught.value)


def gpqa_rows(count: int) -> list[dict[str, str]]:
    wrong = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
    return [{"Question": f"q{n}", "Correct Answer": "right", **wrong} for n in range(count)]


def test_options_are_shuffled_as_skythought_does():
    """It seeds the process-wide generator with 41 and shuffles the texts themselves, row after row."""
    order, task, rng = order_by_stream(41), BENCHMARKS["gpqa_diamond"], random.Random(41)
    for row in gpqa_rows(20):
        options = ["right", "wrong 1", "wrong 2", "wrong 3"]
        rng.shuffle(options)
        question = task.read(row, order)
        a, b, c, d = options
        assert question.text == f"{row['Question']}\nA) {a}, B) {b}, C) {c}, D) {d}"
        assert question.reference == "ABCD"[options.index("right")]
        assert [["right", "wrong 1", "wrong 2", "wrong 3"][i] for i in question.order] == options
        assert question.source == (row["Question"], "right")


def test_a_bad_row_moves_no_other_in_the_stream():
    task, rows = BENCHMARKS["gpqa_diamond"], gpqa_rows(6)
    whole = [task.read(row, order) for order in [order_by_stream(41)] for row in rows]
    order, found = order_by_stream(41), []
    for row in [*rows[:2], {**rows[2], "Incorrect Answer 3": None}, *rows[3:]]:
        try:
            found.append(task.read(row, order))
        except DataError:
            continue
    assert found == whole[:2] + whole[3:]


def test_orders_by_row_depend_on_seed_and_question_alone():
    first, again, other = order_by_row(1), order_by_row(1), ORDERS["row"](2)
    questions = [f"q{n}" for n in range(50)]
    orders = [first(q) for q in questions]
    assert [again(q) for q in reversed(questions)] == orders[::-1]
    assert [other(q) for q in questions] != orders
    assert {order.index(0) for order in orders} == {0, 1, 2, 3}
