"""Questions from files, prompts around them, and how many samples of each."""

import json
from dataclasses import replace

import pytest

from rlt.config.schema import BenchmarkSettings, DataSettings, EvaluateSettings, SubsetSettings
from rlt.errors import DataError
from rlt.evaluation.items import Asked, load_items, num_samples, plan_samples
from rlt.formats.tags import TAG_STYLES
from rlt.records import problem_id

TAGS = TAG_STYLES["bespoke"]
DATA = DataSettings(on_long_row="error")


@pytest.fixture
def aime(tmp_path):
    """Return a file of three rows, one of them of another year."""
    rows = [
        {"problem": f"p{i}", "answer": f"0{i}", "url": f"x/{year}_AIME_I"}
        for i, year in enumerate((2024, 2023, 2024))
    ]
    path = tmp_path / "aime.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(task, evaluate, source="none", data=DATA):
    return load_items(task, evaluate, data, source, TAGS, 41)


def test_a_benchmark_from_a_file(aime, caplog):
    items = load("aime24", EvaluateSettings(paths={"aime24": aime})).values
    assert [item.problem.solution for item in items] == ["0", "2"]
    assert items[0].problem.question == r"Put your final answer inside \boxed{}. p0"
    assert items[0].problem.id == problem_id("p0", "00")
    assert "aime24 has 2 problems here, and 30 in all" in caplog.text


def test_ones_own_prompt_and_a_part_of_the_rows(aime):
    evaluate = EvaluateSettings(paths={"aime24": aime}, prompts={"aime24": "{question} {braces}?"})
    data = DataSettings(subset=SubsetSettings(n=1))
    (item,) = load("aime24", evaluate, data=data).values
    assert item.problem.question in ("p0 {braces}?", "p2 {braces}?")
    assert item.problem.id in (problem_id("p0", "00"), problem_id("p2", "02"))


def test_a_file_without_a_row_of_the_task_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "p", "answer": "1", "url": "2023"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl holds no row of aime24"):
        load("aime24", EvaluateSettings(paths={"aime24": str(path)}))


def test_without_the_hub_the_way_out_is_named():
    with pytest.raises(
        DataError, match=r"aimo-validation-aime.*; evaluate.paths=\{aime24: FILE\} reads a file"
    ):
        load("aime24", EvaluateSettings())


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "q", "solution": "#### 4"}, "#### 4"),
        ({"question": "q", "solution": "It is 4.", "answer": "4"}, "4"),
        ({"question": "q", "answer": "4"}, "4"),
    ],
)
def test_ones_own_problems_as_they_are(tmp_path, row, reference):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**row, "system": "Think."}) + "\n")
    (item,) = load("problems", EvaluateSettings(grader="math"), str(path)).values
    assert (item.problem.question, item.problem.solution) == ("q", reference)
    assert (item.problem.system, item.grading, item.is_private) == ("Think.", "math", False)


def test_few_problems_get_many_samples():
    robust = EvaluateSettings(num_samples=None)
    counts = {"aime24": 30, "math500": 500, "gpqa_diamond": 198, "gsm8k": 1319}
    assert {t: num_samples(t, n, robust) for t, n in counts.items()} == {
        "aime24": 32,
        "math500": 2,
        "gpqa_diamond": 8,
        "gsm8k": 1,
    }
    assert [num_samples("problems", n, robust) for n in (1, 200, 999, 5000)] == [32, 5, 2, 1]
    assert num_samples("aime24", 30, EvaluateSettings(num_samples=3)) == 3


def test_a_problem_that_is_there_twice_gets_other_samples(aime):
    first, second = load("aime24", EvaluateSettings(paths={"aime24": aime})).values
    asked = [Asked(item, [1], "") for item in (first, second, first)]
    samples = plan_samples(asked, {"aime24": 2})
    one, two = first.problem.id, second.problem.id
    assert [sample.key[1:] for sample in samples] == [
        (one, 0),
        (one, 1),
        (two, 0),
        (two, 1),
        (one, 2),
        (one, 3),
    ]
    assert len({sample.seed(41) for sample in samples}) == len(samples)


def test_a_benchmark_of_ones_own(tmp_path):
    """Its record is beside the known ones, and its rows are read in the same way."""
    rows = [
        {"q": f"q{i}", "right": f"r{i}", "wrong": f"w{i}", "topic": "acids" if i else "salts"}
        for i in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = BenchmarkSettings(
        "chemistry",
        question="q",
        answer="right",
        grader="choice",
        options=["right", "wrong"],
        shuffle=True,
        groups=["topic"],
        num_samples=5,
        prompt="Choose. {question}",
    )
    evaluate = EvaluateSettings(benchmarks=[record], paths={"chemistry": str(path)})
    items = load("chemistry", evaluate).values
    assert [item.groups for item in items] == [{"topic": "salts"}, {"topic": "acids"}, {"topic": "acids"}]
    for i, item in enumerate(items):
        shown = {"AB"[item.order.index(0)]: f"r{i}", "AB"[item.order.index(1)]: f"w{i}"}
        assert item.problem.question == f"Choose. q{i}\nA) {shown['A']}, B) {shown['B']}"
        assert shown[item.problem.solution] == f"r{i}"
    assert (items[0].grading, num_samples("chemistry", 3, replace(evaluate, num_samples=None))) == (
        "choice",
        5,
    )
