"""What is done about a step, by what its directory holds: the line says what has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.fake_models import fake_model

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR
from rlt.config.resolve import resolve
from rlt.config.save import save_config
from rlt.io import file_digest
from rlt.pipeline.decide import Decision, decide
from rlt.pipeline.plan import PlannedStep, make_plan
from rlt.rundir.run_record import RunRecord

RUN = Path("out/student_sft")
RUN_FILE = """\
stage: pipeline
model_name_or_path: null
dataset_id_or_path: none
output_dir: out
pipeline:
  steps:
    student_sft:
      model_name_or_path: base
      layout.student_prompt: file:prompt.txt
      dataset_id_or_path: rows.jsonl
"""


def plan(*words: str) -> list[PlannedStep]:
    config = resolve(compose(["run_cfg/mine.yaml", *words]))
    return make_plan(config, [Path.cwd(), CONFIG_DIR])


def decided(*words: str, ignore_code: bool = False) -> Decision:
    (step,) = plan(*(f"pipeline.steps.student_sft.{word}" for word in words))
    return decide(step, ignore_code=ignore_code)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a finished student_sft step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("run_cfg").mkdir()
    Path("run_cfg/mine.yaml").write_text(RUN_FILE)
    fake_model(Path("base"))
    Path("prompt.txt").write_text("Think.")
    Path("rows.jsonl").write_text('{"question": "1+1?", "solution": "2", "explanation": "one and one"}\n')
    inputs = {"model": "base", "dataset": "rows.jsonl", "layout.student_prompt": "prompt.txt"}
    with RunRecord.start(RUN, stage="student_sft", seed=42, inputs=inputs):
        save_config(plan()[0].config, RUN / "config.yaml")
    return RUN


def edit(run: Path, **fields) -> None:
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_finished_step_stands(run):
    assert decided().text.endswith("and nothing has changed since")
    assert not decided().runs
    # Where things go, and what other steps and stages are told, does not matter.
    assert not decided("report_to=wandb", "gpus=1", "strategy=ddp").runs


def test_a_setting(run):
    assert decided("learning_rate=3e-5", "seed=7").text == (
        "runs again: learning_rate was 1e-05 and is 3e-05; seed was 42 and is 7"
    )


def test_the_content_of_an_input_but_not_its_place(run):
    Path("rows.jsonl").rename("moved.jsonl")
    assert not decided("dataset_id_or_path=moved.jsonl").runs
    before = file_digest(Path("moved.jsonl"))[:12]
    Path("rows.jsonl").write_text('{"question": "1+2?", "solution": "3", "explanation": "one and two"}\n')
    after = file_digest(Path("rows.jsonl"))[:12]
    assert decided().why == f"dataset_id_or_path was rows.jsonl ({before}) and is rows.jsonl ({after})"
    Path("moved.jsonl").rename("rows.jsonl")
    Path("prompt.txt").write_text("Think!")
    assert decided().why.startswith("layout.student_prompt was prompt.txt (")


def test_the_code(run):
    edit(run, code={"sha256": "0" * 64})
    assert decided().why == "the code is another one (pipeline.ignore_code=true lets it pass)"
    assert decided().aside
    assert not decided(ignore_code=True).runs


def test_another_stage_in_its_directory(run):
    edit(run, stage="teacher_sft")
    assert decided().why == "stage was teacher_sft"


def test_what_a_later_step_reads_must_be_there(run):
    later = ["run_cfg=select_traces", "dataset_id_or_path={student_sft}/x.jsonl"]
    student, _ = plan(*(f"pipeline.steps.later.{word}" for word in later))
    assert decide(student, ignore_code=False).text == "runs again: out/student_sft/x.jsonl is missing"
    (run / "x.jsonl").touch()
    assert not decide(student, ignore_code=False).runs


def test_what_failed_goes_on_although_the_code_was_mended(run):
    edit(run, status="failed", error="ValueError: no", code={"sha256": "0"})
    assert decided().text == "runs: the last run is failed (ValueError: no)"
    assert not decided().aside
    checkpoint = run / "checkpoint-2"
    checkpoint.mkdir()
    assert not decided().from_checkpoint  # not whole
    (checkpoint / "trainer_state.json").write_text("{}")
    assert decided().text.startswith("continues from its last checkpoint: ")
    assert decided("seed=7") == Decision(True, "seed was 42 and is 7", aside=True)  # of another run


def test_nothing_there(run):
    run.rename("elsewhere")
    assert decided() == Decision(True, "it has not run yet")
