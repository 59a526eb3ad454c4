"""Two real CPU processes: ZeRO-1, 2 and 3, the student's placements, LoRA, and failing together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.stage_runs import (
    eval_rows,
    interrupted_copy,
    largest_difference,
    mix,
    run_processes,
    succeed,
    train_rows,
    weights,
)
from test_teacher_rl_run import nan_student

from rlt.config.save import load_config
from rlt.forecast.disk import disk_needs
from rlt.forecast.model_size import read_size
from rlt.rundir.samples import read_samples
from rlt.rundir.timeline import read_timelines

pytestmark = pytest.mark.slow
FIRST_STEP = ("reward", "reward_std", "r_ss", "r_kl", "format", "explanation_tokens", "num_tokens")


def assert_same_first_step(output: Path, run: Path, *also: str) -> None:
    """Samples and rewards of the first step depend on neither strategy, placement nor process count."""
    ours, theirs = train_rows(output)[1], train_rows(run)[1]
    for key in (*FIRST_STEP, *also):
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
    assert all(row["drift/max"] < 1e-3 for row in train_rows(output).values())


def test_zero3_does_what_one_process_does(zero3_run: Path, run: Path):
    assert_same_first_step(zero3_run, run, "grad_norm")
    assert train_rows(zero3_run).keys() == {1, 2, 3, 4}
    assert train_rows(zero3_run)[1]["loss"] == pytest.approx(train_rows(run)[1]["loss"], abs=1e-5)
    assert train_rows(zero3_run)[2]["reward"] == pytest.approx(train_rows(run)[2]["reward"], rel=1e-3)
    assert largest_difference(weights(zero3_run), weights(zero3_run / "checkpoint-4")) == 0


def test_two_processes_are_drawn_side_by_side(zero3_run: Path):
    steps = read_timelines(zero3_run / "timeline.jsonl")
    assert [step.step for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert {span.lane for span in step.spans} == {"process 0", "process 1"}
        first, second = sorted(span for span in step.spans if span.phase == "update")
        # In lockstep on one clock: each has passes that the other takes part in.
        assert max(first.begin, second.begin) < min(first.end, second.end)
        assert max(first.end, second.end) <= step.seconds + 1e-3


@pytest.mark.parametrize("strategy", ["single", "zero3"])
def test_checkpoints_take_what_the_preflight_says(strategy: str, run: Path, zero3_run: Path):
    directory = {"single": run, "zero3": zero3_run}[strategy]
    config = load_config(directory / "config.yaml")
    needs = disk_needs(config, strategy, read_size(str(config.model_name_or_path)), num_steps=4)
    assert needs.num_checkpoints == 2
    tensors = (".safetensors", ".bin", ".pt")
    sizes = [p.stat().st_size for p in (directory / "checkpoint-4").rglob("*") if p.suffix in tensors]
    assert needs.checkpoint == pytest.approx(sum(sizes), rel=0.05)
    final = sum(p.stat().st_size for p in directory.glob("*.safetensors"))
    assert needs.model == pytest.approx(final, rel=0.05)


def test_the_reference_moves_under_zero3(zero3_run: Path, tiny_teacher: Path):
    second = mix(weights(zero3_run / "checkpoint-2"), weights(tiny_teacher))
    assert largest_difference(weights(zero3_run / "checkpoint-2" / "reference"), second) < 1e-6
    fourth = mix(weights(zero3_run / "checkpoint-4"), second)
    assert largest_difference(weights(zero3_run / "checkpoint-4" / "reference"), fourth) < 1e-6


def test_zero3_resumes_exactly(zero3_run: Path, words, tmp_path: Path):
    copy = interrupted_copy(zero3_run, tmp_path / "copy", step=2)
    changes = ["trainer.save_steps=2", "resume_from=latest"]
    succeed(run_processes("zero3", words(copy, *changes, evaluate=False)))
    assert train_rows(copy) == train_rows(zero3_run)
    assert largest_difference(weights(copy), weights(zero3_run)) == 0
    ours, theirs = copy / "checkpoint-4" / "reference", zero3_run / "checkpoint-4" / "reference"
    assert largest_difference(weights(ours), weights(theirs)) == 0


def test_zero3_sharded_student_and_one_parameter_at_a_time(run: Path, words, held_out: Path, tmp_path: Path):
    """One held-out problem: the second process has none, yet takes part in every collective."""
    (tmp_path / "one.jsonl").write_text(held_out.read_text().splitlines(keepends=True)[0])
    changes = ["reward.placement=zero3", "trainer.max_steps=2", f"evaluation.path={tmp_path / 'one.jsonl'}"]
    changes += ["evaluation.steps=1", "evaluation.num_generations=2"]
    # Passes of about 370 tokens: whether one keeps its activations, the processes decide together.
    changes += ["trainer.gradient_checkpointing=auto", "trainer.recompute_above=370"]
    script = Path(__file__).with_name("counting_gathers.py")
    count = tmp_path / "gathers.json"
    output = words(tmp_path / "run", *changes, evaluate=False)
    succeed(run_processes("zero3", output, script=script, RLT_TEST_GATHERS=str(count)))
    assert_same_first_step(tmp_path / "run", run)
    first_two = [row["reward"] for row in read_samples(run / "samples" / "eval_step_000000.parquet")[:2]]
    one = eval_rows(tmp_path / "run")
    assert one.keys() == {0, 1, 2}
    assert one[0]["eval_reward"] == pytest.approx(sum(first_two) / 2, rel=1e-4)
    gathers = json.loads(count.read_text())
    assert gathers["number"] > 20  # every parameter of policy and reference, in one mix
    assert gathers["most_at_once"] == 2  # a parameter of the policy and its twin


def test_zero3_with_lora_and_an_offloaded_student(run: Path, words, tiny_teacher: Path, tmp_path: Path):
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    output = tmp_path / "run"
    changes = ["reward.placement=cpu_offload", "model.lora.rank=4", "trainer.max_steps=2"]
    changes += ["trainer.gradient_checkpointing=auto", "trainer.recompute_above=370"]
    succeed(run_processes("zero3", words(output, *changes, evaluate=False)))
    assert_same_first_step(output, run)
    model = AutoModelForCausalLM.from_pretrained(output)
    assert largest_difference(dict(model.state_dict()), weights(tiny_teacher)) > 1e-5


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["zero1", "zero2"])
def test_zero1_and_zero2(strategy: str, run: Path, words, tmp_path: Path):
    succeed(run_processes(strategy, words(tmp_path / "run", "trainer.max_steps=2", evaluate=False)))
    assert_same_first_step(tmp_path / "run", run, "grad_norm")
    second = train_rows(tmp_path / "run")[2]
    assert second["reward"] == pytest.approx(train_rows(run)[2]["reward"], rel=1e-3)


@pytest.mark.long
def test_a_student_of_nan_ends_all_processes(words, tiny_student: Path, tmp_path: Path):
    student = nan_student(tiny_student, tmp_path / "student")
    done = run_processes("ddp", words(tmp_path / "run", f"student_model={student}", evaluate=False))
    assert done.returncode == 4, done.stdout[-4000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "no completion of this step has a finite reward" in said[0]
    assert "Traceback" not in done.stdout
