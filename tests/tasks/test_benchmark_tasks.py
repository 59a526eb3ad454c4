"""What each benchmark reads in a row: question, reference, order of the options. All rows are made up."""

import random
from dataclasses import fields
from pathlib import Path

import pytest

from rlt.config.schema import BENCHMARKS as NAMES
from rlt.config.schema import SLOT, BenchmarkSettings
from rlt.errors import DataError
from rlt.tasks.benchmarks.catalog import BENCHMARKS, table
from rlt.tasks.benchmarks.task import ORDERS, order_by_row, order_by_stream, reader
from rlt.tasks.extraction import ORDERS as RULES
from rlt.tasks.extraction import extract
from rlt.tasks.math_grader import MathGrader

ROOT = Path(__file__).parents[2]
ANY = order_by_row(0)
TEN = [f"option {i}" for i in range(10)]


def read(task: str, row: dict, order=ANY):
    return reader(BENCHMARKS[task])(row, order)


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
        ("countdown", {"question": "p", "solution": "(1 + 2) / 3"}, "(1 + 2) / 3"),
        ("aime25", {"problem_idx": 3, "problem": "p", "answer": 70}, "70"),
        ("aime26", {"problem_idx": 3, "problem": "p", "answer": 7}, "7"),
        (
            "hmmt_feb25",
            {"problem": "p", "answer": r"\frac{1}{576}", "problem_type": ["Algebra"]},
            r"\frac{1}{576}",
        ),
        ("hmmt_nov25", {"problem": "p", "answer": "-984", "problem_type": []}, "-984"),
        ("hmmt_feb26", {"problem": "p", "answer": "1, 2"}, "1, 2"),
        ("brumo25", {"problem": "p", "answer": r"2\sqrt{3}"}, r"2\sqrt{3}"),
        ("amc23", {"problem": "p", "answer": 27.0, "url": "x/2023_AMC_12A"}, "27"),
        ("amc23", {"problem": "p", "answer": 0.5, "url": "x/2023_AMC_12A"}, "0.5"),
        (
            "minerva",
            {"problem": "p", "solution": r"Thus $v = \boxed{3e8}$ m/s.", "type": "x", "idx": 0},
            "3e8",
        ),
        ("olympiadbench", {"question": "p", "final_answer": ["$2$", "$3$"], "subfield": "Algebra"}, "2, 3"),
        ("olympiadbench", {"question": "p", "final_answer": [r"$\frac{1}{2}$"]}, r"\frac{1}{2}"),
    ],
)
def test_references(task, row, reference):
    question = read(task, row)
    assert question.reference == reference
    assert (question.text, question.order) == ("p", None)


def test_only_2024_is_of_aime24():
    assert read("aime24", {"problem": "p", "answer": "1", "url": "x/2023_AIME_I/1"}) is None
    assert read("amc23", {"problem": "p", "answer": 1.0, "url": "x/2022_AMC_12A"}) is None


@pytest.mark.parametrize(
    ("task", "row", "letter"),
    [
        ("supergpqa", {"question": "q", "options": TEN, "answer": "option 9", "answer_letter": "J"}, "J"),
        ("mmlu_pro", {"question": "q", "options": TEN[:5], "answer": "E", "answer_index": 4}, "E"),
    ],
)
def test_up_to_ten_options_keep_their_order(task, row, letter):
    question = read(task, row)
    assert question.reference == letter
    assert question.order is None
    lettered = [f"{a}) {text}" for a, text in zip("ABCDEFGHIJ", row["options"], strict=False)]
    assert question.text == "\n".join(["q", *lettered])
    assert question.source == ("q", row["options"][-1])


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"So \boxed{J}.", "J"),
        (r"\boxed{\text{(I) none of them}}", "I"),
        ("The answer is I.", "I"),
        ("The answer is **H**", "H"),
        ("I think that it is E, and I am sure.", "E"),
        ("Not B, but\n\nA", "A"),
        ("I'd say a lot of things.", None),
        ("(D)", "D"),
    ],
)
def test_a_letter_of_ten(text, letter):
    """Among ten options `I` is an option and a word, as `A` is."""
    for rules in RULES.values():
        assert extract(text, rules["choice10"])[0] == letter


def test_groups_are_kept():
    row = {"problem": "p", "answer": "1", "subject": "Algebra", "level": 5, "unique_id": "test/x"}
    assert read("math500", row).groups == {"subject": "Algebra", "level": "5"}
    assert read("math500", {"problem": "p", "answer": "1"}).groups == {}
    assert read("gpqa_diamond", {**gpqa_rows(1)[0], "High-level domain": "Physics"}).groups == {
        "High-level domain": "Physics"
    }


def test_several_answers_are_graded_as_a_set():
    """OlympiadBench lists them; a student may give them in another order."""
    reference = read("olympiadbench", {"question": "p", "final_answer": ["$2$", "$-3$"]}).reference
    with MathGrader(most_children=1) as grader:
        assert grader.grade([("-3, 2", reference), ("2", reference)]) == [True, False]


def test_every_record_says_where_it_comes_from():
    for record in BENCHMARKS.values():
        assert record.hub is not None or record.name == "countdown"
        assert record.revision is None or len(record.revision) == 40
    assert len(table()) == len(BENCHMARKS) + 1


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("aime24", {"problem": "secret", "answer": "1000"}),
        ("aime24", {"problem": "secret", "answer": "-1"}),
        ("math500", {"problem": " ", "answer": "secret"}),
        ("gpqa_diamond", {"Question": "secret", "Correct Answer": "secret"}),
        ("countdown", {"question": "secret", "answer": "1 / 0"}),
        ("gsm8k", {"question": ["secret"], "answer": "18"}),
        ("mmlu_pro", {"question": "secret", "options": ["secret"], "answer": "A"}),
        ("mmlu_pro", {"question": "secret", "options": [*TEN, "secret"], "answer": "A"}),
        ("mmlu_pro", {"question": "secret", "options": "secret", "answer": "A"}),
        ("supergpqa", {"question": "secret", "options": TEN[:4], "answer_letter": "E"}),
        ("supergpqa", {"question": "secret", "options": TEN[:4], "answer_letter": "secret"}),
        ("olympiadbench", {"question": "secret", "final_answer": []}),
        ("amc23", {"problem": "secret", "answer": None}),
    ],
)
def test_a_bad_row_is_refused_without_quoting_it(task, row):
    with pytest.raises(DataError) as caught:
        read(task, row)
    assert "secret" not in str(caught.value)


def gpqa_rows(count: int) -> list[dict[str, str]]:
    wrong = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
    return [{"Question": f"q{n}", "Correct Answer": "right", **wrong} for n in range(count)]


def test_options_are_shuffled_as_skythought_does():
    """It seeds the process-wide generator with 41 and shuffles the texts themselves, row after row."""
    order, rng = order_by_stream(41), random.Random(41)
    for row in gpqa_rows(20):
        options = ["right", "wrong 1", "wrong 2", "wrong 3"]
        rng.shuffle(options)
        question = read("gpqa_diamond", row, order)
        a, b, c, d = options
        assert question.text == f"{row['Question']}\nA) {a}, B) {b}, C) {c}, D) {d}"
        assert question.reference == "ABCD"[options.index("right")]
        assert [["right", "wrong 1", "wrong 2", "wrong 3"][i] for i in question.order] == options
        assert question.source == (row["Question"], "right")


def test_a_bad_row_moves_no_other_in_the_stream():
    task, rows = "gpqa_diamond", gpqa_rows(6)
    whole = [read(task, row, order) for order in [order_by_stream(41)] for row in rows]
    order, found = order_by_stream(41), []
    for row in [*rows[:2], {**rows[2], "Incorrect Answer 3": None}, *rows[3:]]:
        try:
            found.append(read(task, row, order))
        except DataError:
            continue
    assert found == whole[:2] + whole[3:]


def test_orders_by_row_depend_on_seed_and_question_alone():
    first, again, other = order_by_row(1), order_by_row(1), ORDERS["row"](2)
    questions = [f"q{n}" for n in range(50)]
    orders = [first(q, 4) for q in questions]
    assert [again(q, 4) for q in reversed(questions)] == orders[::-1]
    assert [other(q, 4) for q in questions] != orders
    assert {order.index(0) for order in orders} == {0, 1, 2, 3}


def test_the_table_in_the_docs_is_current():
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for row in table():
        assert f"| {' | '.join(row)} |\n" in text
    for field in fields(BenchmarkSettings):
        assert f"| `{field.name}` | {field.metadata['doc']} |\n" in text
