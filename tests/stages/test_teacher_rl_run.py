"""Teacher RL in one process, on random models: what a run leaves on disk, repeats, and takes up again."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import sys
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import (
    ROOT,
    count_differences,
    eval_rows,
    interrupted_copy,
    largest_difference,
    mix,
    rows,
    run_command,
    run_here,
    succeed,
    train_rows,
    weights,
)
from safetensors.torch import load_file, save_file

from rlt.config.compose import compose
from rlt.errors import CheckpointError, DataError, ModelError, Paused
from rlt.rundir.run_record import read_run
from rlt.rundir.samples import read_samples, sample_files
from rlt.rundir.timeline import read_timelines
from rlt.stages.common import resume_point


def test_every_step_has_its_rows(run: Path):
    train, held_out = sample_files(run / "samples"), sample_files(run / "samples", "eval_")
    assert list(train) == [1, 2, 3, 4]
    assert list(held_out) == [0, 1, 2, 3, 4]
    for step, file in train.items():
        table = read_samples(file)
        assert len(table) == 8  # 2 problems x 4
        assert sorted(row["sample_index"] for row in table) == sorted([0, 1, 2, 3] * 2)
        mean = sum(row["reward"] for row in table) / 8
        assert train_rows(run)[step]["reward"] == pytest.approx(mean, rel=1e-6)
        for row in table:
            assert row["reward"] == pytest.approx(row["r_ss"] - row["r_kl"] + row["format"])
    for step, file in held_out.items():
        table = read_samples(file)
        counts = {row["problem_id"]: 0 for row in table}
        for row in table:
            counts[row["problem_id"]] += 1
        assert list(counts.values()) == [2] * 5  # five problems, two explanations each
        mean = sum(row["reward"] for row in table) / 10
        assert eval_rows(run)[step]["eval_reward"] == pytest.approx(mean, rel=1e-9)
        assert eval_rows(run)[step]["eval_unscorable"] == 0


def test_run_record_and_card(run: Path):
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert (record["problems"], record["held_out"]) == (12, 5)
    for name in ("config.yaml", "README.md", "report.html", "tokenizer.json", "config.json"):
        assert (run / name).stat().st_size > 0


def test_every_step_is_timed_from_its_begin_to_its_end(run: Path):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {step.step: step for step in read_timelines(run / "timeline.jsonl")}
    assert list(steps) == [1, 2, 3, 4]
    for row in (line for line in lines if "loss" in line):
        step = steps[row["step"]]
        assert {span.lane for span in step.spans} == {"process 0"}  # the policy itself generates
        assert step.seconds == pytest.approx(row["time/step"], abs=1e-3)
        order = ["read", "generate", "reference", "reward", "update"]
        own = sorted((s for s in step.spans if s.phase in order), key=lambda span: span.begin)
        assert [phase for phase, _ in groupby(span.phase for span in own)] == order
        assert all(earlier.end <= later.begin for earlier, later in pairwise(own))
        for phase in order:  # what models make of the rows, and then what each row earns: twice "reward"
            seconds = sum(span.end - span.begin for span in own if span.phase == phase)
            assert row[f"time/{phase}"] == pytest.approx(seconds, abs=1e-3)
        # The rest: texts, samples, monitors.
        assert sum(row[f"time/{phase}"] for phase in order) < row["time/step"]
        assert row["perf/padding"] < 1.05
    page = (run / "report.html").read_text()
    assert "of median length among the 4 that were logged" in page


def test_the_reward_moves_the_weights_and_the_engine_follows(run: Path, tiny_teacher: Path):
    steps = train_rows(run)
    assert largest_difference(weights(run), weights(tiny_teacher)) > 1e-3  # four steps of 1e-3
    assert all(step["drift/max"] < 1e-3 for step in steps.values())
    assert [steps[i]["kl"] > 1e-5 for i in (1, 2, 3, 4)] == [False, True, True, True]


def test_generated_tokens_are_counted(run: Path):
    total = 0
    for step, file in sample_files(run / "samples").items():
        total += sum(row["num_tokens"] for row in read_samples(file))
        assert train_rows(run)[step]["completions/total_tokens"] == total


@pytest.mark.slow
def test_same_seed_same_metrics_in_another_process(run: Path, words, tmp_path: Path):
    again = words(tmp_path / "again", "trainer.max_steps=2")
    succeed(run_command([sys.executable, str(ROOT / "train.py"), *again], timeout=1000))
    ours = [row for row in rows(tmp_path / "again") if "train_loss" not in row]
    assert len(ours) == 2 + 3  # two steps, and an evaluation before, between and after
    assert ours == [row for row in rows(run) if row["step"] <= 2]


def test_another_seed_other_metrics(run: Path, words, tmp_path: Path):
    other = run_here(words(tmp_path / "other", "trainer.max_steps=1", "seed=43", evaluate=False))
    assert train_rows(other)[1]["reward"] != train_rows(run)[1]["reward"]


@pytest.mark.slow
def test_evaluation_leaves_training_untouched(run: Path, words, tmp_path: Path):
    without = run_here(words(tmp_path / "without", evaluate=False))
    assert not eval_rows(without)
    assert train_rows(without) == train_rows(run)
    assert largest_difference(weights(without), weights(run)) == 0


def test_checkpoints_hold_the_moved_reference(run: Path, tiny_teacher: Path):
    start = weights(tiny_teacher)
    second = mix(weights(run / "checkpoint-2"), start)
    assert largest_difference(weights(run / "checkpoint-2" / "reference"), second) < 1e-6
    fourth = mix(weights(run / "checkpoint-4"), second)
    assert largest_difference(weights(run / "checkpoint-4" / "reference"), fourth) < 1e-6
    assert largest_difference(second, start) > 1e-3


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one(run: Path, words, tmp_path: Path):
    copy = interrupted_copy(run, tmp_path / "copy", step=2)
    resumed = run_here(words(copy, "trainer.save_steps=2", "resume_from=latest"))
    assert count_differences(resumed, run) == 0
    assert "other settings" not in (resumed / "log.txt").read_text()
    ours_4, theirs_4 = resumed / "checkpoint-4" / "reference", run / "checkpoint-4" / "reference"
    assert largest_difference(weights(ours_4), weights(theirs_4)) == 0
    assert list(sample_files(resumed / "samples")) == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_run_of_many_short_jobs_equals_the_uninterrupted_one(run: Path, words, tmp_path: Path):
    """No step fits into the hours, so each start takes the one it cannot do without."""
    output = tmp_path / "jobs"
    job = words(output, "trainer.save_steps=2", "trainer.max_hours=1e-6", "resume_from=auto")
    for step in (1, 2, 3):
        with pytest.raises(Paused, match=f"paused after step {step} of 4"):
            run_here(job)
        assert read_run(output)["status"] == "paused"
        assert not (output / "config.json").exists()
    run_here(job)
    assert count_differences(output, run) == 0
    assert list(sample_files(output / "samples")) == [1, 2, 3, 4]


@pytest.mark.slow
def test_resuming_in_a_later_epoch_meets_the_same_problems(words, tmp_path: Path):
    # Four problems, two a step: steps 3 and 4 are the second epoch, in an order of its own.
    changes = ["data.subset.n=4", "trainer.save_steps=3"]
    whole = run_here(words(tmp_path / "whole", *changes, evaluate=False))
    copy = interrupted_copy(whole, tmp_path / "copy", step=3)
    (copy / "samples" / "step_000004.parquet").unlink()
    resumed = run_here(words(copy, *changes, "resume_from=latest", evaluate=False))
    tables = [read_samples(r / "samples" / "step_000004.parquet") for r in (whole, resumed)]
    assert [row["problem_id"] for row in tables[0]] == [row["problem_id"] for row in tables[1]]
    assert train_rows(resumed) == train_rows(whole)
    first, second = (
        [row["problem_id"] for step in steps for row in read_samples(sample_files(whole / "samples")[step])]
        for steps in ((1, 2), (3, 4))
    )
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.slow
def test_resuming_a_finished_run_trains_no_further(run: Path, words, tmp_path: Path):
    copy = interrupted_copy(run, tmp_path / "copy", step=4)
    changes = ["trainer.save_steps=2", "resume_from=latest", "learning_rate=1e-4", "trainer.max_hours=9"]
    again = run_here(words(copy, *changes))
    assert (
        "with other settings than it had before: learning_rate was 0.001 and is 0.0001\n"
        in (again / "log.txt").read_text()
    )
    assert train_rows(again) == train_rows(run)
    assert largest_difference(weights(again), weights(run)) == 0


@pytest.mark.slow
def test_resuming_with_a_reference_that_did_not_move_would_show(run: Path, words, tmp_path: Path):
    copy = interrupted_copy(run, tmp_path / "copy", step=2)
    lost = copy / "checkpoint-2" / "reference"
    file = next(lost.glob("*.safetensors"))
    save_file({name: value + 0.01 for name, value in load_file(file).items()}, file)
    resumed = run_here(words(copy, "resume_from=latest", evaluate=False))
    assert train_rows(resumed)[3]["reward"] == train_rows(run)[3]["reward"]
    assert train_rows(resumed)[3]["kl"] != train_rows(run)[3]["kl"]


@pytest.mark.slow
def test_resuming_from_an_older_checkpoint_keeps_the_newer_one_apart(run: Path, words, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    changes = ["trainer.save_steps=2", f"resume_from={copy / 'checkpoint-2'}"]
    resumed = run_here(words(copy, *changes, evaluate=False))
    assert {p.name for p in copy.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4", "checkpoint-4.1"}
    ours, theirs = resumed / "checkpoint-4" / "reference", run / "checkpoint-4" / "reference"
    assert largest_difference(weights(ours), weights(theirs)) == 0
    assert largest_difference(weights(resumed), weights(run)) == 0


@pytest.mark.slow
def test_a_fresh_run_keeps_an_earlier_one_apart(run: Path, words, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    run_here(words(copy, "seed=43", "trainer.save_steps=2", "trainer.max_steps=2", evaluate=False))
    kept = {"checkpoint-2.1", "checkpoint-4.1", "metrics.jsonl.1", "samples.1", "checkpoint-2"}
    kept.add("timeline.jsonl.1")
    assert kept <= {p.name for p in copy.iterdir()}
    assert not (copy / "checkpoint-4").exists()
    assert list(sample_files(copy / "samples")) == [1, 2]


@pytest.mark.slow
def test_a_save_that_fails_leaves_the_checkpoint_before(words, tmp_path: Path, monkeypatch):
    def save_until_the_disk_is_full(tensors, path, **kwargs):
        if "checkpoint-4" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_file(tensors, path, **kwargs)

    monkeypatch.setattr("rlt.generation.checkpoint_sync.save_file", save_until_the_disk_is_full)
    changes = ["trainer.save_steps=2", "trainer.save_total_limit=1"]
    with pytest.raises(CheckpointError, match="the reference model cannot be written"):
        run_here(words(tmp_path / "run", *changes, evaluate=False))
    config = compose(words(tmp_path / "run", "resume_from=latest"))
    assert resume_point(config) == tmp_path / "run" / "checkpoint-2"


def test_too_few_problems_for_a_step_are_refused(words, tmp_path: Path):
    with pytest.raises(
        DataError, match=r"leaves 12 problems .* one step needs .* = 16: add problems, or lower"
    ):
        run_here(words(tmp_path / "run", "train_batch_size=64", evaluate=False))


@pytest.mark.slow
def test_resuming_without_the_reference_is_refused(run: Path, words, tmp_path: Path):
    copy = interrupted_copy(run, tmp_path / "copy", step=2)
    shutil.rmtree(copy / "checkpoint-2" / "reference")
    command = [sys.executable, str(ROOT / "train.py"), *words(copy, "resume_from=latest")]
    done = run_command(command, timeout=1000)
    assert done.returncode == 6, done.stdout[-3000:]
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert "checkpoint-2 holds no reference/ folder" in said
    assert "resume from a checkpoint that has it" in said
    assert "Traceback" not in done.stdout


def test_final_model(run: Path, tiny_tokenizer):
    assert re.search(r"the teacher stops at .*<\|im_end\|> \(\d+\)", (run / "log.txt").read_text())
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(run)
    assert largest_difference(weights(run), weights(run / "checkpoint-4")) == 0
    assert largest_difference(dict(model.state_dict()), weights(run)) == 0
    assert AutoTokenizer.from_pretrained(run).get_vocab() == tiny_tokenizer.get_vocab()
    defaults = GenerationConfig.from_pretrained(run)
    stop_ids = {tiny_tokenizer.eos_token_id, tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert set(defaults.eos_token_id) == stop_ids
    assert defaults.repetition_penalty in (None, 1.0)
    assert (defaults.top_p or 1.0, defaults.top_k, defaults.temperature) == (1.0, 0, 0.7)


@pytest.mark.slow
def test_lora_trains_adapters_and_writes_a_plain_model(words, tiny_teacher: Path, tmp_path: Path):
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    changes = ["model.lora.rank=4", "trainer.max_steps=2", "learning_rate=1e-2"]
    output = tmp_path / "lora"
    run_here(words(output, *changes, evaluate=False))
    assert "trainer.ref_sync_steps=2 is switched off" in (output / "log.txt").read_text()
    model = AutoModelForCausalLM.from_pretrained(output)
    assert largest_difference(dict(model.state_dict()), weights(output)) == 0
    before = weights(tiny_teacher)
    assert weights(output).keys() == before.keys()
    changed = {name for name, value in weights(output).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    steps = train_rows(output)
    assert steps[1]["kl"] == pytest.approx(0, abs=1e-6)
    assert steps[2]["kl"] > 1e-5
    assert max(steps[1]["drift/max"], steps[2]["drift/max"]) < 1e-3


def nan_student(student: Path, folder: Path) -> Path:
    """Write a copy of a student whose LM head is NaN."""
    shutil.copytree(student, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = torch.full_like(tensors["lm_head.weight"], math.nan)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_a_student_of_nan_stops_the_run(words, tiny_student: Path, tmp_path: Path):
    student = nan_student(tiny_student, tmp_path / "student")
    with pytest.raises(ModelError, match="no completion of this step has a finite reward") as caught:
        run_here(words(tmp_path / "run", f"student_model={student}", evaluate=False))
    assert str(caught.value).endswith("there is no whole checkpoint yet: start again with that put right")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert not os.path.exists(tmp_path / "run" / "config.json")
