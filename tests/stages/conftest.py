"""Runs that several tests look at: each is made once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers.stage_runs import later_win, rl_words, run_here, run_processes, student_words, succeed


@pytest.fixture(scope="session")
def held_out(toy_problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of five held-out problems: an odd number, so two processes hold different shares."""
    path = tmp_path_factory.mktemp("held_out") / "held_out.jsonl"
    lines = toy_problems.read_text().splitlines(keepends=True)
    path.write_text("".join(line.replace("*2", "*3") for line in lines[:5]))
    return path


@pytest.fixture(scope="session")
def words(tiny_teacher: Path, tiny_student: Path, toy_problems: Path, held_out: Path):
    """Return a function that gives the command-line words of a teacher_rl run into a folder.

    The reference moves every second step, so a checkpoint of step 2 holds a moved one, and the KL term
    of steps 3 and 4 depends on it.
    """

    def build(output: Path, *changes: str, evaluate: bool = True) -> list[str]:
        usual = ["learning_rate=1e-3", "trainer.max_steps=4", "trainer.ref_sync_steps=2"]
        if evaluate:
            usual += [f"evaluation.path={held_out}", "evaluation.steps=1", "evaluation.num_generations=2"]
        return rl_words(tiny_teacher, tiny_student, toy_problems, output, *usual, *changes)

    return build


@pytest.fixture(scope="session")
def run(words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of four steps in one process, with a checkpoint and an evaluation in between."""
    return run_here(words(tmp_path_factory.mktemp("run") / "run", "trainer.save_steps=2"))


@pytest.fixture(scope="session")
def zero3_run(words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the same four steps in two processes under ZeRO-3."""
    output = tmp_path_factory.mktemp("zero3") / "run"
    succeed(run_processes("zero3", words(output, "trainer.save_steps=2", evaluate=False)))
    return output


@pytest.fixture(scope="session")
def taught_student(tiny_tokenizer, save_tiny, tmp_path_factory) -> Callable[[str], tuple[Path, list[str]]]:
    """Return a function that teaches a random model good toy traces, to end as told, once for each end.

    It returns the student's folder and 200 questions that it has not seen.
    """
    from rlt.quickstart.world import draw_distinct, solve, stepwise

    @cache
    def teach(turn_end: str) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp(turn_end)
        rng = random.Random(1)
        held_out = draw_distinct(rng, 200)
        rows = [
            {"question": question, "solution": solve(question), "explanation": stepwise(question)}
            for question in draw_distinct(rng, 2400, without=frozenset(held_out))
        ]
        (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        model = save_tiny(tiny_tokenizer, folder / "model", layers=1, initializer_range=0.02)
        changes = ["layout.student_prompt=Think.", f"distill.turn_end={turn_end}", "learning_rate=5e-3"]
        changes += [
            "train_batch_size=16",
            "per_device_train_batch_size=16",
            "trainer.gradient_checkpointing=false",
        ]
        words = student_words(model, folder / "traces.jsonl", folder / "student", *changes)
        return run_here(words, "student_sft"), held_out

    return teach


@pytest.fixture(scope="session")
def thinker(tiny_student, toy_problems, tmp_path_factory) -> Path:
    """Return a student that thinks in its tags: fine-tuned on one trace per toy problem."""
    folder = tmp_path_factory.mktemp("thinker")
    problems = [json.loads(line) for line in toy_problems.read_text().splitlines()]
    traces = [{**row, "explanation": row["reasoning_trace"]} for row in problems]
    (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in traces))
    changes = ["layout.student_prompt=Think.", "learning_rate=3e-3", "train_batch_size=12"]
    changes += ["per_device_train_batch_size=12", "trainer.num_train_epochs=25"]
    changes += ["trainer.gradient_checkpointing=false"]
    words = student_words(tiny_student, folder / "traces.jsonl", folder / "student", *changes)
    return run_here(words, "student_sft")


@pytest.fixture(scope="session")
def opd_words(thinker, tiny_teacher, toy_problems):
    """Return a function that gives the command-line words of a student_opd run into a folder."""

    def build(output: Path, *changes: str) -> list[str]:
        files = {
            "model_name_or_path": thinker,
            "teacher_model": tiny_teacher,
            "dataset_id_or_path": toy_problems,
            "output_dir": output,
        }
        if any(change.startswith("opd.teacher=") for change in changes):
            del files["teacher_model"]
        return later_win(
            "run_cfg=student_opd",
            *(f"{name}={path}" for name, path in files.items()),
            "model.dtype=float32",
            *(() if "opd.teacher=self" in changes else ("opd.dtype=float32",)),
            "generation.backend=transformers",
            "max_prompt_length=300",
            "max_completion_length=40",
            "num_generations=2",
            "train_batch_size=8",
            "per_device_train_batch_size=4",
            "learning_rate=1e-3",
            "trainer.gradient_checkpointing=false",
            "trainer.max_steps=1",
            "trainer.save_steps=0",
            "report_to=null",
            *changes,
        )

    return build


@dataclass
class Step:
    """What the trainer was given at its first step."""

    problems: list[Any] = field(default_factory=list)
    completions: list[Any] = field(default_factory=list)


@pytest.fixture
def opd_step(monkeypatch) -> Step:
    """Return what the real `measure` is called with at the first step of a run."""
    from rlt.trainers.student_opd import StudentOPDTrainer

    step, measure = Step(), StudentOPDTrainer.measure

    def recorded(self, items, completions, *args, **kwargs):
        if not step.problems:
            step.problems = [item.problem for item in items]
            step.completions = list(completions)
        return measure(self, items, completions, *args, **kwargs)

    monkeypatch.setattr(StudentOPDTrainer, "measure", recorded)
    return step
