"""A run continues only as what it began: data, model, students, reference, adapters, tags and prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.stage_runs import rl_words, run_here, sft_words, student_words

from rlt.errors import CheckpointError
from rlt.rundir.origin import NAME

pytestmark = pytest.mark.slow
ONE_STEP = ("trainer.max_steps=1", "trainer.save_steps=1")
LORA = "model.lora.rank=4"


@pytest.fixture(scope="module")
def models(tiny_teacher: Path, tiny_student: Path, toy_problems: Path, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    for name, model in (("model", tiny_student), ("same", tiny_student), ("other", tiny_teacher)):
        shutil.copytree(model, folder / name)
    shutil.copy(toy_problems, folder / "data.jsonl")
    lines = toy_problems.read_text().splitlines(keepends=True)
    (folder / "reordered.jsonl").write_text("".join([*lines[1:], lines[0]]))  # the same rows in another order
    (folder / "prompt.txt").write_text("Think.")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def typed(models):
    """Return a function from a stage, a run's folder and changes to what is typed; later words win."""

    def words(stage: str, output: Path, *changes: str) -> list[str]:
        model, data = models["model"], models["data"]
        if stage == "teacher_rl":
            usual = ["trainer.ref_sync_steps=1", *ONE_STEP, *changes]
            return rl_words(model, models["other"], data, output, *usual)
        if stage == "student_sft":
            prompt = f"layout.student_prompt=file:{models['prompt']}"
            return student_words(model, data, output, prompt, *ONE_STEP, *changes)
        return sft_words(stage, model, data, output, *ONE_STEP, *changes)

    return words


@pytest.fixture(scope="module")
def begun(typed, tmp_path_factory):
    """Return runs of one step with a checkpoint, each made once."""
    folder = tmp_path_factory.mktemp("begun")
    made: dict[str, Path] = {}

    def make(stage: str, *changes: str) -> Path:
        name = "-".join([stage, *changes])
        if name not in made:
            made[name] = run_here(typed(stage, folder / str(len(made)), *changes), stage)
        return made[name]

    return make


def contents(run: Path) -> dict[str, bytes]:
    """Return every file of a run but for the log of the test and the lock."""
    files = (p for p in run.rglob("*") if p.is_file() and p.name not in ("log.txt", ".lock"))
    return {str(p.relative_to(run)): p.read_bytes() for p in files}


CHANGES = [
    ("teacher_sft", (), "model_name_or_path={other}", "model (model@sha256:"),
    ("teacher_sft", (), "dataset_id_or_path={reordered}", "dataset (data.jsonl@sha256:"),
    ("teacher_sft", (), "layout.teacher_prompt=Explain.", "teacher prompt ("),
    ("teacher_sft", (), "layout.tags=r1", "tags (bespoke, now r1)"),
    ("teacher_sft", (), LORA, "LoRA (off, now rank 4"),
    ("student_sft", (LORA,), "model.lora.rank=0", "LoRA (rank 4"),
    ("student_sft", (LORA,), "model.lora.rank=8", "now rank 8"),
    ("student_sft", (LORA,), "layout.student_prompt=Think more.", "student prompt (Think., now Think more.)"),
    ("teacher_rl", (), "student_model={same}", "student (other@sha256:"),
    ("teacher_rl", (), "trainer.ref_sync_steps=0", "reference (moving, now fixed)"),
    ("teacher_rl", (), "layout.student_prompt=Think.", "student prompt ("),
]


@pytest.mark.parametrize(("stage", "began", "change", "said"), CHANGES)
def test_what_must_not_change_is_refused_before_anything_is_written(
    stage, began, change, said, typed, begun, models, tmp_path: Path
):
    run = tmp_path / "run"
    shutil.copytree(begun(stage, *began), run)
    before = contents(run)
    typed_change = change.format_map(models)
    with pytest.raises(CheckpointError, match="cannot continue from") as error:
        run_here(typed(stage, run, *began, "resume_from=latest", typed_change), stage)
    assert said in str(error.value)
    assert contents(run) == before


def test_a_path_and_auto_are_compared_too(typed, begun, models, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(begun("teacher_sft"), run)
    for place in (run / "checkpoint-1", "auto"):
        words = typed("teacher_sft", run, f"resume_from={place}", f"model_name_or_path={models['other']}")
        with pytest.raises(CheckpointError, match="model "):
            run_here(words, "teacher_sft")


def test_the_same_content_elsewhere_goes_on_and_versions_are_told(typed, begun, models, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(begun("teacher_sft"), run)
    path = run / "checkpoint-1" / NAME
    origin = json.loads(path.read_text())
    origin["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(origin))
    moved = [f"model_name_or_path={models['same']}", "trainer.max_steps=2", "resume_from=latest"]
    run_here(typed("teacher_sft", run, *moved), "teacher_sft")
    log = (run / "log.txt").read_text()
    assert "the run continues, with what differs from before: torch was 1.0 and is " in log
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


def test_a_start_that_failed_in_between_does_not_count(typed, begun, models, tmp_path: Path):
    """It wrote another model into run.json, but no checkpoint."""
    run = tmp_path / "run"
    shutil.copytree(begun("teacher_sft"), run)
    record = json.loads((run / "run.json").read_text())
    record["inputs"]["model"]["sha256"] = "0" * 64
    (run / "run.json").write_text(json.dumps(record))
    run_here(typed("teacher_sft", run, "trainer.max_steps=2", "resume_from=latest"), "teacher_sft")
    (run / "checkpoint-2" / NAME).unlink()  # one of before: compared by run.json
    other = [f"model_name_or_path={models['other']}", "trainer.max_steps=3", "resume_from=latest"]
    with pytest.raises(CheckpointError, match="model "):
        run_here(typed("teacher_sft", run, *other), "teacher_sft")


def test_further_epochs_go_on_with_the_schedule(typed, tmp_path: Path):
    """Cosine over 3 and then 6 steps: after step 3 of 6 it is at half its height, not at 0."""
    words = ["trainer.lr_scheduler_type=cosine", "trainer.warmup_steps=0", "learning_rate=1e-3"]
    words += ["trainer.save_steps=3", "trainer.max_steps=-1"]
    run = tmp_path / "run"
    run_here(typed("teacher_sft", run, *words, "trainer.num_train_epochs=1"), "teacher_sft")
    more = ["trainer.num_train_epochs=2", "resume_from=latest"]
    run_here(typed("teacher_sft", run, *words, *more), "teacher_sft")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "loss" in line}
    assert rates[4] == pytest.approx(0.5e-3)  # (1 + cos(pi * 3 / 6)) / 2
    assert rates[5] == pytest.approx(0.25e-3)  # (1 + cos(pi * 4 / 6)) / 2
