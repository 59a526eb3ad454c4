"""Samples of other tools, made up in the shapes that these tools write, graded again."""

import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from rlt.errors import DataError
from rlt.evaluation.compare import main as compare
from rlt.regrade.__main__ import main, task_of
from rlt.regrade.read import read_samples
from rlt.regrade.sample import kind_of, plain_reference
from rlt.surroundings.leaving import run_command

RIGHT, WRONG = r"So it is \boxed{\frac{1}{2}}.", r"So it is \boxed{3}."
GPQA = {"Question": "secret q", "Correct Answer": "x", "Incorrect Answer 1": "y"}
LIGHTEVAL = [
    {
        "doc": {
            "query": "Solve. q1",
            "choices": ["0.5"],
            "gold_index": [0],
            "task_name": "lighteval|aime24|0",
        },
        "model_response": {"text": [RIGHT, WRONG], "output_tokens": [[1, 2, 3], [4]]},
        "metric": {"pass@k": 1.0},
    },
    {
        "doc": {"query": "q2", "choices": list("ABCD"), "gold_index": [2], "task_name": "gpqa:diamond|0"},
        "model_response": {"text": ["Answer: C"], "output_tokens": [[1, 2]]},
        "metric": {"extractive_match": 0.0},
    },
]
OLD_LIGHTEVAL = [
    {"full_prompt": "q", "predictions": f"[{RIGHT!r}]", "gold": r"['ANSWER: \\boxed{0.5}']", "metrics": "{}"}
]
SKYTHOUGHT = {
    "0": {
        "problem": "q1",
        "answer": "1/2",
        "responses": [{"content": RIGHT, "correctness": False, "reason": "x"}],
        "token_usages": [{"completion_tokens": 7, "prompt_tokens": 3}],
    },
    "1": {**GPQA, "Answer": "B", "prompt": "p", "responses": [{"content": "It is B.", "correctness": True}]},
    "2": {"question": "q3", "final_answer": ["$1$", "$2$"], "responses": [{"content": r"\boxed{2, 1}"}]},
}
EVALCHEMY = {
    "results": {
        "AIME24": {
            "examples": [
                {"id": 0, "problem": "q1", "expected_answer": "0.5", "model_outputs": [RIGHT, WRONG]},
                {"id": 1, "problem": "q2", "expected_answer": "7", "model_outputs": [WRONG, WRONG]},
            ],
            "num_repeat": 2,
        },
        "GPQADiamond": {"examples": [{**GPQA, "answer": "D", "model_outputs": ["It is D."]}]},
        "MATH500": {"examples": [{"problem": "q", "answer": r"\frac12", "model_output": RIGHT, "level": 5}]},
        "IFEval": {"accuracy": 0.5},
    }
}
TEXTS = [
    {"id": "a", "answer": "0.5", "text": RIGHT, "num_tokens": 5, "finish_reason": "stop", "correct": True},
    {"id": "a", "answer": "0.5", "text": WRONG, "finish_reason": "length", "correct": True},
    {"question": "q", "answer": "#### 1,000", "texts": ["It is 1000.", "It is 10."], "task": "gsm8k"},
]


def write(path, content):
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "details.parquet",
            LIGHTEVAL,
            [("aime24", "0.5", 3), ("aime24", "0.5", 1), ("gpqa_diamond", "C", 2)],
        ),
        ("details.json", LIGHTEVAL[:1], [("aime24", "0.5", 3), ("aime24", "0.5", 1)]),
        ("old.parquet", OLD_LIGHTEVAL, [("t", "0.5", None)]),
        ("results.json", SKYTHOUGHT, [("t", "1/2", 7), ("t", "B", None), ("t", "1, 2", None)]),
        (
            "evalchemy.json",
            EVALCHEMY,
            [
                *[("aime24", "0.5", None)] * 2,
                *[("aime24", "7", None)] * 2,
                ("gpqa_diamond", "D", None),
                ("math500", r"\frac12", None),
            ],
        ),
        ("mine.jsonl", TEXTS, [("t", "0.5", 5), ("t", "0.5", None), *[("gsm8k", "1000", None)] * 2]),
        ("one.json", TEXTS[0], [("t", "0.5", 5)]),
    ],
)
def test_every_tool_is_read(tmp_path, name, content, expected):
    samples = list(read_samples(write(tmp_path / name, content), "t"))
    assert [(s.task, s.reference, s.num_tokens) for s in samples] == expected
    assert all(dict(s.groups) == {"level": "5"} for s in samples if s.task == "math500")
    assert all(kind_of(s) == ("choice" if s.reference in "ABCD" else "math") for s in samples)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.json", '{"model": "a"}', "row 1 is of no known shape (model). It must be lighteval's details"),
        ("x.json", "[]", "holds no samples"),
        ("x.json", "[3]", "row 1 is of no known shape (int)"),
        ("x.jsonl", '{"answer": 1, "text": "2"}\nnot json\n', "line 2 is neither JSON nor a line of JSONL"),
        ("x.parquet", "PAR", "is no parquet file"),
        ("x.json", '[{"answer": "1", "texts": [1]}]', "must be a text or a list of texts, got list"),
        ("x.json", '[{"answer": "", "text": "a"}]', "has none of the fields answer"),
        ("x.json", '{"1": {"responses": {"0.7": 1}}}', "`responses` must be a list"),
        (
            "x.json",
            '[{"doc": {"choices": ["a"], "gold_index": 1}, "model_response": {}}]',
            "names none of its 1",
        ),
    ],
)
def test_an_unknown_shape_gets_a_sentence(tmp_path, capsys, name, text, expected):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        list(read_samples(tmp_path / name, "t"))
    assert expected in str(caught.value)
    assert run_command(main, [str(tmp_path / name), "--output", str(tmp_path / "out")]) != 0
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_folder_is_that_of_an_evaluation(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert (
        run_command(main, [str(write(tmp_path / "mine.jsonl", TEXTS)), "--output", str(first), "--task", "t"])
        == 0
    )
    page = capsys.readouterr().out
    assert "Of 2 answers of t the tool itself calls 2 right; 0 are right here alone, 1 there alone." in page
    numbers = json.loads((first / "summary.json").read_text())["tasks"]
    assert (numbers["t"]["accuracy"], numbers["t"]["cut"], numbers["t"]["num_problems"]) == (0.5, 1, 1)
    assert (numbers["gsm8k"]["accuracy"], numbers["gsm8k"]["tokens"]) == (0.5, None)
    report = (first / "report.html").read_text()
    assert report.count("<article") == 4
    assert json.loads((first / "run.json").read_text())["status"] == "finished"
    better = [{**row, "text": RIGHT, "correct": None} for row in TEXTS[:2]]
    better += [{**TEXTS[2], "texts": ["1000", "1000"]}]
    assert (
        run_command(main, [str(write(tmp_path / "b.jsonl", better)), "--output", str(second), "--task", "t"])
        == 0
    )
    capsys.readouterr()
    problems = [{**row, "id": i} for i, row in enumerate(better[:2])]
    assert (
        run_command(main, [str(write(tmp_path / "c.jsonl", problems)), "--output", str(tmp_path / "c")]) == 0
    )
    capsys.readouterr()
    assert compare([str(tmp_path / "c"), str(tmp_path / "c")]) == 0
    assert "| samples | c | 2 | 2 | 100.0 [" in capsys.readouterr().out
    assert run_command(main, [str(tmp_path / "b.jsonl"), "--output", str(second)]) != 0
    assert "is not empty: give a new folder" in capsys.readouterr().err


def test_of_a_private_benchmark_no_question_is_written(tmp_path, capsys):
    path = write(tmp_path / "gpqa_diamond.json", SKYTHOUGHT)
    assert run_command(main, [str(path), "--output", str(tmp_path / "out")]) == 0
    assert all("secret q" not in file.read_text() for file in (tmp_path / "out").iterdir() if file.is_file())


def test_references_and_tasks():
    assert plain_reference(r"ANSWER: Thus \boxed{x}") == "x"
    assert plain_reference(" 4\n#### 1,234") == "1234"
    assert plain_reference(7) == "7"
    from pathlib import Path

    assert task_of(Path("out/Qwen_MATH-500_1/results.json")) == "math500"
    assert task_of(Path("out/x/results.json")) == "samples"
