"""evaluate with the student in process: numbers, files, kills and resumption."""

from __future__ import annotations

import html
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from helpers.collect_runs import killed_at
from helpers.page_tags import parse
from helpers.skythought_stand_in import stand_in
from helpers.stage_runs import later_win, run_here, run_processes, succeed

from rlt.errors import CheckpointError, DataError
from rlt.rundir.run_record import read_run
from rlt.text import printable

STAGE = "evaluate"
NUM_ROWS = 12
K = 3
TASKS = ("gsm8k", "gpqa_diamond")


def shown(text: str) -> str:
    """Return a text as a page holds it."""
    return html.escape(printable(text)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


@pytest.fixture(scope="module")
def gsm8k(shared, tmp_path_factory) -> Path:
    """Return a file of the first rows of GSM8K's test set."""
    path = tmp_path_factory.mktemp("gsm8k") / "gsm8k.jsonl"
    lines = (shared / "data" / "gsm8k_test.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:NUM_ROWS]))
    return path


@pytest.fixture(scope="module")
def gpqa(tmp_path_factory) -> Path:
    """Return a file of made-up questions in GPQA's columns."""
    path = tmp_path_factory.mktemp("gpqa") / "gpqa.jsonl"
    wrong = {f"Incorrect Answer {i}": f"{i}" for i in (1, 2, 3)}
    rows = [{"Question": f"{n}+4?", "Correct Answer": str(n + 4), **wrong} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def words(tiny_student, gsm8k, gpqa):
    """Return a function that gives the words of an evaluation into a folder, three answers a problem."""

    def build(output: Path, *changes: str) -> list[str]:
        return later_win(
            "run_cfg=evaluate",
            "eval_cfg=robust",
            f"model_name_or_path={tiny_student}",
            f"output_dir={output}",
            "generation.backend=transformers",
            "model.dtype=float32",
            "evaluate.tasks=[gsm8k,gpqa_diamond]",
            f"evaluate.paths={{gsm8k: {gsm8k}, gpqa_diamond: {gpqa}}}",
            f"evaluate.num_samples={K}",
            "evaluate.samples_per_chunk=6",
            "max_prompt_length=900",
            "max_completion_length=24",
            *changes,
        )

    return build


@pytest.fixture(scope="module")
def evaluated(words, tmp_path_factory) -> Path:
    """Return the directory of an undisturbed run."""
    return run_here(words(tmp_path_factory.mktemp("evaluated") / "run"), STAGE)


def samples_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "samples.jsonl").read_text().split("\n") if line]


def summary_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "summary.json").read_text())["tasks"]


def test_the_summary_is_that_of_the_samples(evaluated):
    rows = samples_of(evaluated)
    assert [row["sample_index"] for row in rows] == [0, 1, 2] * (NUM_ROWS + 4)
    for task, count in (("gsm8k", NUM_ROWS), ("gpqa_diamond", 4)):
        numbers, ours = summary_of(evaluated)[task], [row for row in rows if row["task"] == task]
        assert (numbers["num_problems"], numbers["num_samples"]) == (count, K * count)
        scores = [statistics.mean(r["correct"] for r in ours[i : i + K]) for i in range(0, len(ours), K)]
        assert numbers["accuracy"] == pytest.approx(statistics.mean(scores))
        assert numbers["standard_error"] == pytest.approx(statistics.stdev(scores) / math.sqrt(count))
        assert numbers["truncated"] == statistics.mean(r["finish_reason"] == "length" for r in ours)
        assert numbers["tokens"]["max"] == max(r["num_tokens"] for r in ours)
    assert read_run(evaluated)["results"] == summary_of(evaluated)


def test_no_text_of_gpqa_is_kept(evaluated, gpqa):
    rows = [row for row in samples_of(evaluated) if row["task"] == "gpqa_diamond"]
    assert all(row["question"] is None and sorted(row["option_order"]) == [0, 1, 2, 3] for row in rows)
    assert all(row["reference"] == "ABCD"[row["option_order"].index(0)] for row in rows)
    questions = [json.loads(line)["Question"] for line in gpqa.read_text().splitlines()]
    for file in (p for p in evaluated.rglob("*") if p.is_file()):
        text = file.read_text(errors="replace")
        assert not any(f"{question}\\nA)" in text or f"{question}\nA)" in text for question in questions), (
            file
        )


def test_the_report_shows_answers_but_none_to_a_private_question(evaluated):
    page = (evaluated / "report.html").read_text()
    texts = {task: [shown(r["text"]) for r in samples_of(evaluated) if r["task"] == task] for task in TASKS}
    assert min(len(text) for of_task in texts.values() for text in of_task) > 10
    assert all(text in page for text in texts["gsm8k"])
    assert not any(text in page for text in texts["gpqa_diamond"])
    assert page.count("<article") == K * (NUM_ROWS + 4)


def test_the_report_says_how_long_each_phase_took(evaluated):
    run = read_run(evaluated)
    spent = run["seconds_by_phase"]
    assert list(spent) == ["reading", "loading", "answering", "grading", "writing"]
    assert 0 < sum(spent.values()) <= run["seconds"] + 0.05  # each is rounded
    page = parse(evaluated / "report.html").text
    assert all(phase in page.split("Time of the run")[1] for phase in spent)


def test_the_manifest_names_everything(evaluated, tiny_student, gsm8k):
    manifest = json.loads((evaluated / "manifest.json").read_text())
    inputs = read_run(evaluated)["inputs"]
    assert manifest["model"] == inputs["model"]["sha256"]
    assert manifest["data"]["gsm8k"] == inputs["gsm8k"]
    assert (manifest["temperature"], manifest["top_p"], manifest["repetition_penalty"]) == (0.6, 0.95, 1.0)
    assert (manifest["seed"], manifest["model.dtype"]) == (41, "float32")
    assert len(manifest["tasks"]["gsm8k"]["prompts_sha256"]) == 64
    assert "math-verify" in manifest["libraries"]


def test_the_same_again_gives_the_same_bytes(evaluated, words, tmp_path):
    again = run_here(words(tmp_path / "again"), STAGE)
    for name in ("samples.jsonl", "summary.json", "summary.md"):
        assert (again / name).read_bytes() == (evaluated / name).read_bytes(), name
    report = (again / "report.html").read_bytes()
    with pytest.raises(
        CheckpointError, match=r"holds answers of another run \(temperature was 0\.6 and is 0\.7\)"
    ):
        run_here(words(again, "temperature=0.7"), STAGE)
    assert (again / "report.html").read_bytes() == report  # the numbers of the run that has some


@pytest.mark.slow
def test_kills_and_two_processes_change_no_byte(evaluated, words, tmp_path):
    output = tmp_path / "killed"
    for moment in (0, 13):
        killed_at(words(output), output, moment, torn=moment == 13)
        assert not (output / "summary.json").exists()
    run_here(words(output), STAGE)
    succeed(run_processes("ddp", words(tmp_path / "two")))
    for folder in (output, tmp_path / "two"):
        for name in ("samples.jsonl", "summary.json"):
            assert (folder / name).read_bytes() == (evaluated / name).read_bytes(), (folder, name)


def test_ones_own_problems_are_graded_by_their_answers(words, tmp_path):
    """What a greedy student has answered is taken for right in every other row of the next run."""
    problems = tmp_path / "problems.jsonl"
    rows = [{"question": f"{a}+{a}*2", "answer": "none of these"} for a in range(6)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [
        "eval_cfg=skythought",
        "evaluate.extraction=lenient",
        "evaluate.num_samples=1",
        "evaluate.tasks=[problems]",
        "evaluate.paths={}",
    ]
    changes += [f"dataset_id_or_path={problems}", "max_completion_length=16"]
    first = run_here(words(tmp_path / "first", *changes), STAGE)
    assert summary_of(first)["problems"]["accuracy"] == 0
    for i, row in enumerate(samples_of(first)):
        assert row["question"] == rows[i]["question"]
        rows[i]["answer"] = row["extracted"] if i % 2 else "none of these"
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = run_here(words(tmp_path / "second", *changes), STAGE)
    assert [row["correct"] for row in samples_of(second)] == [False, True] * 3
    assert summary_of(second)["problems"]["accuracy"] == 0.5


def test_published_numbers_and_skythoughts_verdicts_stand_beside_ours_on_request(
    words, tmp_path, monkeypatch
):
    problems = tmp_path / "aime.jsonl"
    problems.write_text('{"problem": "1+1?", "answer": "2"}\n')
    changes = ["evaluate.tasks=[aime24]", f"evaluate.paths={{aime24: {problems}}}", "evaluate.num_samples=2"]
    plain = run_here(words(tmp_path / "plain", *changes), STAGE)
    asking = ["evaluate.reference=true", f"evaluate.original={stand_in(tmp_path / 'sky', monkeypatch)}"]
    beside = run_here(words(tmp_path / "beside", *changes, *asking), STAGE)
    assert "RLT-7B" not in (plain / "summary.md").read_text()
    page = (beside / "summary.md").read_text()
    assert re.search(r"\| RLT-7B +\| +23\.3 \* \| N ", page)
    assert "V, N: aime24: 1 of 30 problems, 2 samples a problem, not 1, temperature 0.6, not 0.0" in page
    reports = [(run / "report.html").read_text() for run in (plain, beside)]
    assert [report.count('alt="accuracies"') for report in reports] == [1, 2]
    assert ["Hollow marks" in report for report in reports] == [False, True]
    assert [row["question"] for row in samples_of(plain)] == [
        r"Put your final answer inside \boxed{}. 1+1?"
    ] * 2
    assert [row["question"] for row in samples_of(beside)] == [r"Box it: \boxed{}. 1+1?"] * 2
    for run, source in ((plain, "ours"), (beside, "SkyThought's")):
        whose = [json.loads((run / name).read_text()) for name in ("summary.json", "manifest.json")]
        assert whose[0]["prompt_source"] == whose[1]["prompt_source"] == {"aime24": source}
        assert (whose[0]["second_grader"] is None) is (run == plain)
        said = f"aime24 in {'our' if run == plain else source} words"
        assert said in (run / "summary.md").read_text()
        assert shown(said) in (run / "report.html").read_text()
        verdicts = {row["correct_skythought"] for row in samples_of(run)}
        assert verdicts == ({None} if run == plain else {False})


def test_an_answer_ends_with_the_context_and_a_long_prompt_stops_the_run(words, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": "7*8+9" * 60, "answer": "4"}) + "\n")
    changes = ["evaluate.tasks=[problems]", f"dataset_id_or_path={problems}", "evaluate.paths={}"]
    changes += ["max_prompt_length=1000", "max_completion_length=1024", "evaluate.num_samples=2"]
    rows = samples_of(run_here(words(tmp_path / "full", *changes), STAGE))
    assert max(row["num_tokens"] for row in rows) < 1024
    with pytest.raises(DataError, match="prompt tokens of problems where max_prompt_length allows 100"):
        run_here(words(tmp_path / "long", *changes, "max_prompt_length=100"), STAGE)
