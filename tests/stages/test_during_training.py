"""Benchmarks while a student trains: the same answers and verdicts as `evaluate`, and the same training."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from helpers.stage_runs import (
    largest_difference,
    later_win,
    rows,
    run_here,
    run_processes,
    student_words,
    succeed,
    weights,
)

from rlt.errors import DataError
from rlt.evaluation.paired import compare
from rlt.evaluation.runs import read_manifest, read_shares
from rlt.formats.layout import StudentLayout
from rlt.formats.tags import TAG_STYLES
from rlt.records import Problem
from rlt.stages.benchmarks import keep_earlier_apart, own_prompt

pytestmark = pytest.mark.slow
NUM_PROBLEMS = 5


@pytest.fixture(scope="module")
def gsm8k(tmp_path_factory) -> Path:
    """Return a file of made-up questions in GSM8K's columns, more than are asked."""
    path = tmp_path_factory.mktemp("gsm8k") / "gsm8k.jsonl"
    lines = [{"question": f"{n}+{n}*2", "answer": f"#### {3 * n}"} for n in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def base(tiny_tokenizer, save_tiny, tmp_path_factory) -> Path:
    """Return a model whose dropout draws random numbers at every step of the training."""
    return save_tiny(tiny_tokenizer, tmp_path_factory.mktemp("base") / "model", attention_dropout=0.1)


@pytest.fixture(scope="module")
def words(base, toy_problems, gsm8k):
    """Return a function that gives the words of three steps of student_sft into a folder."""

    def build(output: Path, *changes: str, benchmarks: bool = True) -> list[str]:
        usual = [f"evaluation.path={toy_problems}", "report_to=null"]
        if benchmarks:
            usual += [
                "evaluation.benchmarks.steps=2",
                f"evaluation.benchmarks.num_problems={NUM_PROBLEMS}",
                "evaluation.benchmarks.max_tokens=24",
                "evaluation.benchmarks.tasks=[gsm8k,problems]",
                f"evaluate.paths={{gsm8k: {gsm8k}}}",
                "evaluate.samples_per_chunk=3",
            ]
        return later_win(*student_words(base, toy_problems, output, *usual, *changes))

    return build


@pytest.fixture(scope="module")
def plain(words, tmp_path_factory) -> Path:
    """Return the directory of a run without benchmarks."""
    return run_here(words(tmp_path_factory.mktemp("plain") / "run", benchmarks=False), "student_sft")


@pytest.fixture(scope="module")
def watched(words, tmp_path_factory) -> Path:
    """Return the directory of the same run with benchmarks at steps 0, 2 and 3."""
    return run_here(words(tmp_path_factory.mktemp("watched") / "run"), "student_sft")


def interval(verdicts: list[bool]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of five: t with 4 degrees of freedom, the exact one of 0 in 5."""
    if not any(verdicts):
        return 0.0, 1 - 0.025 ** (1 / 5)
    half = 2.776445 * stdev(verdicts) / 5**0.5
    return max(0.0, mean(verdicts) - half), min(1.0, mean(verdicts) + half)


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().split("\n") if line]


def scores_of(output: Path) -> dict[int, dict[str, Any]]:
    return {row["step"]: row for row in rows(output) if "eval_gsm8k_accuracy" in row}


def without_benchmarks(output: Path) -> list[dict[str, Any]]:
    return [row for row in rows(output) if "eval_gsm8k_accuracy" not in row]


def test_the_training_is_the_same(watched, plain):
    assert largest_difference(weights(watched), weights(plain)) == 0
    assert without_benchmarks(watched) == without_benchmarks(plain)
    assert not (plain / "evaluations").exists()


def test_what_is_logged_is_what_was_answered(watched):
    assert scores_of(watched).keys() == {0, 2, 3}
    for step, logged in scores_of(watched).items():
        answers = samples_of(watched / "evaluations" / f"step_{step:06d}")
        for task in ("gsm8k", "problems"):
            ours = [row for row in answers if row["task"] == task]
            assert len(ours) == len({row["problem_id"] for row in ours}) == NUM_PROBLEMS
            assert logged[f"eval_{task}_accuracy"] == mean(row["correct"] for row in ours)
            assert logged[f"eval_{task}_truncated"] == mean(row["finish_reason"] == "length" for row in ours)
            assert logged[f"eval_{task}_tokens"] == mean(row["num_tokens"] for row in ours)
            limits = tuple(logged[f"eval_{task}_accuracy_{end}"] for end in ("low", "high"))
            assert limits == pytest.approx(interval([row["correct"] for row in ours]), abs=1e-5)
    log, report = (watched / "log.txt").read_text(), (watched / "report.html").read_text()
    assert " % right of 5 problems, " in log
    assert "gsm8k: right answers" in report
    assert "gsm8k" in json.loads((watched / "run.json").read_text())["inputs"]


def test_evaluate_says_the_same_of_the_final_model(watched, toy_problems, gsm8k, tmp_path):
    words = [
        "run_cfg=evaluate",
        f"model_name_or_path={watched}",
        f"dataset_id_or_path={toy_problems}",
        "evaluate.tasks=[gsm8k,problems]",
        f"evaluate.paths={{gsm8k: {gsm8k}}}",
        "evaluate.extraction=lenient",
        "evaluate.unfinished=wrong",
        "generation.backend=transformers",
        "model.dtype=float32",
        "layout.student_prompt=default",
        "max_prompt_length=900",
        "max_completion_length=24",
        f"output_dir={tmp_path / 'evaluate'}",
    ]
    answers = {(row["task"], row["problem_id"]): row for row in samples_of(run_here(words, "evaluate"))}
    last = watched / "evaluations" / "step_000003"
    for row in samples_of(last):
        assert row == answers[row["task"], row["problem_id"]]
    ours, theirs = read_manifest(last), read_manifest(tmp_path / "evaluate")
    assert {key for key in theirs if ours.get(key) != theirs[key]} == {
        "model",
        "tasks",  # fewer problems
        "evaluate.samples_per_chunk",
        "evaluate.option_order",  # of GPQA, which nobody asks here
    }
    pairs = compare(read_shares(watched / "evaluations" / "step_000000"), read_shares(last))
    assert [pair.task for pair in pairs] == ["gsm8k", "problems"]


@pytest.mark.long
def test_two_processes_under_zero3(words, watched, tmp_path):
    for name, benchmarks in (("plain", False), ("watched", True)):
        output = words(tmp_path / name, "trainer.max_steps=2", benchmarks=benchmarks)
        succeed(run_processes("zero3", output))
    ours = tmp_path / "watched"
    assert largest_difference(weights(ours), weights(tmp_path / "plain")) == 0
    assert without_benchmarks(ours) == without_benchmarks(tmp_path / "plain")
    assert scores_of(ours).keys() == {0, 2}
    start = Path("evaluations") / "step_000000"
    assert samples_of(ours / start) == samples_of(watched / start)


def test_adapters_leave_the_saved_end_of_turn_alone(words, tmp_path):
    """PEFT's `generate` overwrites the generation config under them; the stage checks what is saved."""
    pytest.importorskip("peft")
    run = run_here(words(tmp_path / "run", "trainer.max_steps=1", "model.lora.rank=2"), "student_sft")
    saved = json.loads((run / "generation_config.json").read_text())
    assert saved["eos_token_id"][0] == json.loads((run / "config.json").read_text())["eos_token_id"]


def test_a_resumed_run_keeps_what_was_answered_before(tmp_path):
    folder = tmp_path / "evaluations"
    for step in (0, 50, 100):
        (folder / f"step_{step:06d}").mkdir(parents=True)
    keep_earlier_apart(folder, 50)
    assert sorted(place.name for place in folder.iterdir()) == ["step_000000", "step_000050"]
    keep_earlier_apart(folder, 0)
    assert [place.name for place in tmp_path.iterdir()] == ["evaluations.1"]


def test_the_rows_system_prompt_is_that_of_the_benchmarks(tiny_tokenizer):
    layout = StudentLayout(tiny_tokenizer, TAG_STYLES["bespoke"], None)
    problems = [Problem(str(i), "1+1", "2", system="Think.") for i in range(3)]
    assert own_prompt(layout, problems).system_prompt == "Think."
    with pytest.raises(DataError, match=r"2 different system prompts.* give layout.student_prompt=file:PATH"):
        own_prompt(layout, [*problems, Problem("3", "1+1", "2")])
    explicit = StudentLayout(tiny_tokenizer, TAG_STYLES["bespoke"], "Go.")
    assert own_prompt(explicit, problems) is explicit
