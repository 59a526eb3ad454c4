"""Several students through the stages: one of them reads text in tokens of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.stage_runs import rl_words, run_here, train_rows

from rlt.rundir.samples import read_samples

pytestmark = pytest.mark.slow


def test_a_step_of_teacher_rl(tiny_teacher, tiny_student, qwen_student, toy_problems, tmp_path: Path):
    students = f"reward.students=[{{name: qwen, model: {qwen_student}, weight: 3, temperature: 1}}]"
    changes = [students, "trainer.max_steps=1", "reward.solution_span=content"]
    words = rl_words(tiny_teacher, tiny_student, toy_problems, tmp_path / "run", *changes)
    run = run_here(words)
    for row in read_samples(run / "samples" / "step_000001.parquet"):
        assert row["solution_tokens"] == len(row["solution"])  # of digits, and of both students
        assert row["r_ss"] == pytest.approx(row["student/r_ss"] / 4 + row["qwen/r_ss"] * 3 / 4)
        assert row["r_kl"] == pytest.approx(row["student/r_kl"] / 4 + row["qwen/r_kl"] * 3 / 4)
        assert row["student/r_ss"] != pytest.approx(row["qwen/r_ss"])
    assert {"qwen/r_ss", "student/r_kl"} <= train_rows(run)[1].keys()
    log = (run / "log.txt").read_text()
    assert "the student reads the text in its own tokens" in log
    assert "qwen tokens around the explanation" in log
    assert json.loads((run / "run.json").read_text())["inputs"]["student qwen"]["folder"] == str(qwen_student)


def test_the_lowest_of_two_in_score_traces(tiny_student, qwen_student, tmp_path: Path):
    rows = [{"question": f"1+{n}", "solution": str(1 + n), "completions": ["1+1", "so"]} for n in range(3)]
    source = tmp_path / "traces.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = ["run_cfg=score_traces", f"dataset_id_or_path={source}", "reward.dtype=float32"]

    def scores(name: str, *words: str) -> list[dict]:
        run = run_here([*usual, f"output_dir={tmp_path / name}", *words], "score_traces")
        return [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]

    alone = scores("alone", f"student_model={tiny_student}")
    students = [f"reward.students=[{{name: qwen, model: {qwen_student}}}]", "reward.combine=min"]
    # The default counts the blank line after a digit, too.
    assert [row["breakdown"]["solution_tokens"] for row in alone] == [2] * len(alone)
    both = scores("both", f"student_model={tiny_student}", *students)
    for one, two in zip(alone, both, strict=True):
        parts = two["breakdown"]
        by_student = [parts[f"{name}/r_ss"] - parts[f"{name}/r_kl"] for name in ("student", "qwen")]
        assert two["score"] == pytest.approx(min(by_student), abs=1e-6)
        assert by_student[0] == pytest.approx(one["score"], abs=1e-6)
