"""On-policy distillation on disk: runs of each kind of teacher and loss, and their resumption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stage_runs import later_win, run_here, student_words, train_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def thinker(tiny_student, toy_problems, tmp_path_factory) -> Path:
    """Return a student that thinks in its tags: fine-tuned on one trace per toy problem."""
    folder = tmp_path_factory.mktemp("thinker")
    problems = [json.loads(line) for line in toy_problems.read_text().splitlines()]
    traces = [{**row, "explanation": row["reasoning_trace"]} for row in problems]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
    changes = ["layout.student_prompt=Think.", "learning_rate=3e-3", "train_batch_size=12"]
    changes += ["per_device_train_batch_size=12", "trainer.num_train_epochs=30"]
    changes += ["trainer.gradient_checkpointing=false"]
    words = student_words(tiny_student, folder / "traces.jsonl", folder / "student", *changes)
    return run_here(words, "student_sft")


@pytest.fixture(scope="module")
def words(thinker, tiny_teacher, toy_problems):
    """Return a function that gives the command-line words of a student_opd run into a folder."""

    def build(output: Path, *changes: str) -> list[str]:
        return later_win(
            "run_cfg=student_opd",
            f"model_name_or_path={thinker}",
            f"teacher_model={tiny_teacher}",
            f"dataset_id_or_path={toy_problems}",
            f"output_dir={output}",
            "model.dtype=float32",
            "opd.dtype=float32",
            "generation.backend=transformers",
            "max_prompt_length=200",
            "max_completion_length=40",
            "num_generations=2",
            "train_batch_size=8",
            "per_device_train_batch_size=4",
            "learning_rate=1e-3",
            "trainer.gradient_checkpointing=false",
            "trainer.max_steps=2",
            "trainer.save_steps=1",
            "report_to=null",
            *changes,
        )

    return build


def test_a_run(words, tmp_path):
    output = run_here(words(tmp_path / "run"), "student_opd")
    for row in train_rows(output).values():
        print(row)
    print((output / "log.txt").read_text()[-3000:])


@pytest.mark.parametrize("changes", [["opd.support=full", "opd.divergence=js"], ["opd.support=top_k"]])
def test_b(words, tmp_path, changes):
    output = run_here(words(tmp_path / "run", *changes), "student_opd")
    for row in train_rows(output).values():
        print(row)
