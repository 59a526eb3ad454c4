"""A training whose numbers are none ends at that step, in every stage, in one process and in two."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.stage_runs import rl_words, run_here, run_processes, sft_words, student_words, weights
from safetensors.torch import load_file, save_file

from rlt.errors import NotFinite

pytestmark = pytest.mark.slow
FAR = ["learning_rate=1e38", "trainer.weight_decay=10", "trainer.lr_scheduler_type=constant"]
FAR += ["trainer.warmup_steps=0", "trainer.save_steps=1"]
"""With these the first step takes weights out of float32, after a loss and a gradient that are finite."""


def broken(model: Path, folder: Path, name: str, index: tuple[int, int] = (0, 0)) -> Path:
    """Return a copy of a model with one NaN in one of its weights."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][index] = math.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def typed(tiny_teacher: Path, tiny_student: Path, toy_problems: Path) -> dict[str, Callable[..., list[str]]]:
    """Return for each training stage a function from a run's folder, a model and changes to what is typed."""

    def rl(stage: str) -> Callable[..., list[str]]:
        def words(output: Path, *changes: str, model: Path = tiny_student) -> list[str]:
            usual = rl_words(model, tiny_student, toy_problems, output, "trainer.max_steps=3", *changes)
            if stage == "teacher_rl":
                return usual
            dropped = ("run_cfg", "student_model", "reward.dtype")
            kept = [word for word in usual if not word.startswith(dropped)]
            return [*kept, "run_cfg=student_rl", "correctness.grader=math"]

        return words

    def sft(stage: str) -> Callable[..., list[str]]:
        def words(output: Path, *changes: str, model: Path = tiny_student) -> list[str]:
            if stage == "student_sft":
                return student_words(model, toy_problems, output, "trainer.max_steps=3", *changes)
            return sft_words(stage, model, toy_problems, output, "trainer.max_steps=3", *changes)

        return words

    return {
        "teacher_sft": sft("teacher_sft"),
        "student_sft": sft("student_sft"),
        "teacher_rl": rl("teacher_rl"),
        "student_rl": rl("student_rl"),
    }


STAGES = ("teacher_sft", "student_sft", "teacher_rl", "student_rl")


def fails(words: list[str], stage: str) -> str:
    """Return what a run that must end says."""
    with pytest.raises(NotFinite) as error:
        run_here(words, stage)
    assert error.value.exit_code == 4
    return str(error.value)


def lines(run: Path) -> list[dict]:
    def no_constant(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


def assert_nothing_broken(run: Path, checkpoints: list[str]) -> None:
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert not list(run.glob("*.safetensors"))
    assert not (run / "config.json").exists()
    assert sorted(p.name for p in run.glob("checkpoint-*")) == checkpoints


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_with_a_nan_ends_at_the_first_step(stage, typed, tiny_student: Path, tmp_path: Path):
    model = broken(tiny_student, tmp_path / "nan", "model.layers.1.mlp.down_proj.weight")
    said = fails(typed[stage](tmp_path / "run", "trainer.save_steps=1", model=model), stage)
    assert said.startswith("training ends at step 1, because ")
    assert "model.layers.1.mlp.down_proj.weight" in said
    assert "there is no checkpoint" in said
    (line,) = lines(tmp_path / "run")
    name = "reward" if stage.endswith("rl") else "loss"
    assert line["step"] == 1
    assert line[name] is None
    assert_nothing_broken(tmp_path / "run", [])


@pytest.mark.parametrize("stage", STAGES)
def test_weights_that_a_step_breaks_are_not_saved(stage, typed, tmp_path: Path):
    """Loss and gradient of the step are numbers: only a look at the weights tells."""
    said = fails(typed[stage](tmp_path / "run", *FAR), stage)
    assert said.startswith("training ends at step 1, because weights are not finite (")
    (line,) = lines(tmp_path / "run")
    assert math.isfinite(line["loss"])
    assert_nothing_broken(tmp_path / "run", [])


@pytest.fixture(scope="module")
def one_step(typed, tmp_path_factory) -> dict[str, Path]:
    """Return a run of each fine-tuning stage with a checkpoint of its first step."""
    folder = tmp_path_factory.mktemp("one")
    return {
        stage: run_here(typed[stage](folder / stage, "trainer.max_steps=1", "trainer.save_steps=1"), stage)
        for stage in ("student_sft", "teacher_rl")
    }


@pytest.mark.parametrize("stage", ["student_sft", "teacher_rl"])
def test_the_checkpoint_before_is_kept_and_goes_on(stage, typed, one_step, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(one_step[stage], run)
    for file in [*run.glob("*.safetensors"), run / "config.json"]:
        file.unlink()
    said = fails(typed[stage](run, *FAR, "resume_from=latest"), stage)
    assert said.startswith("training ends at step 2, because weights are not finite (")
    assert f"{run / 'checkpoint-1'} is the last whole checkpoint: resume_from=latest continues there" in said
    assert_nothing_broken(run, ["checkpoint-1"])
    lower = [*FAR, "resume_from=latest", "learning_rate=1e-4"]
    run_here(typed[stage](run, *lower), stage)  # the remedy
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert [row["step"] for row in lines(run) if "loss" in row] == [1, 2, 3]
    assert [row["learning_rate"] for row in lines(run) if "loss" in row][1:] == [1e-4, 1e-4]
    assert all(weight.isfinite().all() for weight in weights(run).values())


@pytest.mark.parametrize("stage", ["teacher_sft", "student_sft"])
def test_an_evaluation_that_is_no_number_ends_the_training(
    stage, typed, tiny_tokenizer, tiny_student: Path, toy_problems: Path, tmp_path: Path
):
    """A token that only the held-out rows have has a NaN in its embedding: no training row meets it."""
    held_out = {"question": "9+9", "solution": "8", "reasoning_trace": "9+9=8"}
    (tmp_path / "held_out.jsonl").write_text(json.dumps(held_out) + "\n")
    known = set(tiny_tokenizer(toy_problems.read_text())["input_ids"])
    only_there = [i for i in tiny_tokenizer("9+9")["input_ids"] if i not in known]
    model = broken(tiny_student, tmp_path / "nan", "model.embed_tokens.weight", (only_there[0], 0))
    changes = [f"evaluation.path={tmp_path / 'held_out.jsonl'}", "evaluation.steps=1"]
    said = fails(typed[stage](tmp_path / "run", *changes, "evaluation.at_start=true", model=model), stage)
    assert said.startswith("training ends at step 0, because eval_loss of the held-out rows is not finite")
    (line,) = lines(tmp_path / "run")
    assert line["eval_loss"] is None
    assert_nothing_broken(tmp_path / "run", [])


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
@pytest.mark.parametrize("stage", ["student_sft", "teacher_rl"])
def test_two_processes_end_together(stage, strategy, typed, tmp_path: Path):
    done = run_processes(strategy, typed[stage](tmp_path / "run", *FAR))
    assert done.returncode == 4, done.stdout[-4000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "training ends at step 1, because " in said[0]
    assert "Traceback" not in done.stdout
    assert_nothing_broken(tmp_path / "run", [])
