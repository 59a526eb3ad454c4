"""On-policy distillation on disk: each teacher and loss against a plain computation, and resumption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.opd_by_hand import CASES, SHARED, answer_loss, by_hand
from helpers.stage_runs import (
    count_differences,
    interrupted_copy,
    largest_difference,
    run_here,
    run_processes,
    succeed,
    train_rows,
    weights,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlt.errors import ConfigError, NotFinite
from rlt.records import Problem
from rlt.rundir.samples import read_samples

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_of_a_step(name, opd_words, thinker, tiny_teacher, tmp_path, opd_step):
    """The logged loss and gradient norm, from whole float64 passes over texts laid out by hand."""
    case = CASES[name]
    shared = [] if case.support == "sampled" else [f"opd.temperature={SHARED}"]
    output = run_here(opd_words(tmp_path / "run", *case.changes, *shared), "student_opd")
    row = train_rows(output)[1]
    expected = by_hand(case, output, thinker, tiny_teacher, opd_step)
    assert expected.count > 40
    assert row["loss"] == pytest.approx(expected.loss, rel=1e-4)
    if case.answer_coeff:
        assert expected.taught > 0
        assert row["answer_taught"] == pytest.approx(expected.taught)
        assert row["answer_loss"] == pytest.approx(expected.answer_loss, rel=1e-4)
        assert row["drift/max"] < 1e-3  # of the sampled tokens alone, as the ratio is
    assert row.get("sampling/importance_sampling_ratio/min", 1) > 0.99
    assert row["grad_norm"] == pytest.approx(expected.gradient().item(), rel=1e-4)
    assert row.get("divergence", expected.divergence) == pytest.approx(expected.divergence, rel=1e-4)
    assert row["reverse_kl"] == pytest.approx(expected.distance, rel=0.3)  # its mean is over completions


def test_adapters_get_the_gradient_of_the_weights_that_they_add_to(
    opd_words, thinker, tiny_teacher, tmp_path, opd_step
):
    """dL/dB = scale * dL/dW A^T, and dL/dA = 0 while B is 0."""
    pytest.importorskip("peft")
    case = CASES["full"]
    changes = [*case.changes, f"opd.temperature={SHARED}", "model.lora.rank=2", "model.lora.alpha=6"]
    output = run_here(opd_words(tmp_path / "run", *changes, "trainer.save_steps=1"), "student_opd")
    expected = by_hand(case, output, thinker, tiny_teacher, opd_step)
    of_weights = {name: p.grad for name, p in expected.student.named_parameters()}
    of_adapters = []
    for name, a_RD in load_file(output / "checkpoint-1/adapter_model.safetensors").items():
        if ".lora_A." in name:
            changed = name.removeprefix("base_model.model.").replace(".lora_A", "")
            of_adapters.append((3 * of_weights[changed] @ a_RD.double().T).norm())
    assert len(of_adapters) == 14  # seven linear modules in each of two layers
    row = train_rows(output)[1]
    assert row["loss"] == pytest.approx(expected.loss, rel=1e-4)
    assert row["grad_norm"] == pytest.approx(torch.stack(of_adapters).norm().item(), rel=1e-4)


@pytest.fixture(scope="module")
def averaged(opd_words, tmp_path_factory) -> Path:
    """Return the directory of a run whose teacher is the student's moving average."""
    changes = ["opd.teacher=ema", "opd.ema_share=0.25", "opd.support=top_k", "trainer.max_steps=3"]
    changes += ["trainer.save_steps=1", "learning_rate=1e-2"]
    return run_here(opd_words(tmp_path_factory.mktemp("ema") / "run", *changes), "student_opd")


def test_the_average_follows_the_student(averaged: Path, thinker: Path):
    average = {name: value.double() for name, value in weights(thinker).items()}
    for step in (1, 2):
        policy = weights(averaged / f"checkpoint-{step}")
        average = {name: 0.75 * value + 0.25 * policy[name].double() for name, value in average.items()}
        found: dict[str, Tensor] = {}
        for file in (averaged / f"checkpoint-{step}" / "teacher").glob("*.safetensors"):
            found |= load_file(file)
        assert found.keys() == average.keys()
        assert max((found[name] - average[name]).abs().max().item() for name in found) < 1e-6
        assert largest_difference(policy, weights(thinker)) > 1e-3


def test_a_resumed_run_is_the_run(averaged: Path, opd_words, tmp_path):
    copy = interrupted_copy(averaged, tmp_path / "copy", step=1)
    changes = ["opd.teacher=ema", "opd.ema_share=0.25", "opd.support=top_k", "trainer.max_steps=3"]
    changes += ["trainer.save_steps=1", "learning_rate=1e-2", "resume_from=latest"]
    run_here(opd_words(copy, *changes), "student_opd")
    assert count_differences(copy, averaged) == 0


def test_a_student_without_thoughts_ends_the_run(opd_words, tiny_student, tmp_path):
    changes = [f"model_name_or_path={tiny_student}", "layout.student_prompt=Think."]
    with pytest.raises(NotFinite, match="no completion begins with a thought"):
        run_here(opd_words(tmp_path / "run", *changes), "student_opd")


def test_the_run_directory(averaged: Path):
    record = json.loads((averaged / "run.json").read_text())
    assert (record["stage"], record["status"]) == ("student_opd", "finished")
    card = (averaged / "README.md").read_text()
    assert "gave each of their tokens its probability" in card
    assert "`opd.teacher` | `ema`" in card
    assert "answer_log_prob_coeff" not in card
    assert "distance from the teacher" in (averaged / "report.html").read_text()
    step = train_rows(averaged)[1]
    assert {"monitor/malformed", "monitor/length_ratio", "reverse_kl", "divergence"} <= step.keys()
    assert not {"monitor/kl_share", "advantage"} & step.keys()
    assert step["drift/max"] < 1e-3


def test_two_processes_under_zero3(opd_words, tmp_path):
    """A sharded student against a sharded teacher's whole distribution, and the same in one process."""
    changes = [
        "opd.support=full",
        "opd.divergence=js",
        "opd.answer_coeff=1",
        "per_device_train_batch_size=2",
        "trainer.max_steps=2",
    ]
    alone = run_here(opd_words(tmp_path / "one", *changes), "student_opd")
    done = run_processes("zero3", opd_words(tmp_path / "two", *changes, "opd.placement=zero3"))
    succeed(done)
    ours, theirs = train_rows(tmp_path / "two"), train_rows(alone)
    for name in ("loss", "divergence", "answer_loss", "answer_taught", "reverse_kl", "grad_norm"):
        assert ours[1][name] == pytest.approx(theirs[1][name], rel=1e-3), name
    assert ours.keys() == theirs.keys()


@pytest.mark.long
def test_bfloat16_sharded_is_close_to_float32(opd_words, thinker, tmp_path):
    changes = ["opd.support=full", "opd.divergence=js", "opd.answer_coeff=1"]
    changes += ["per_device_train_batch_size=2"]
    narrow = ["model.dtype=bfloat16", "opd.dtype=bfloat16", "opd.placement=zero3"]
    alone = run_here(opd_words(tmp_path / "one", *changes), "student_opd")
    done = run_processes("zero3", opd_words(tmp_path / "two", *changes, *narrow), precision="bf16")
    succeed(done)
    ours, theirs = train_rows(tmp_path / "two")[1], train_rows(alone)[1]
    # Other samples than in float32, of the same student and the same problems.
    assert ours["divergence"] == pytest.approx(theirs["divergence"], rel=0.3)
    assert ours["reverse_kl"] == pytest.approx(theirs["reverse_kl"], rel=0.3)
    # The answers' loss depends on the samples more than that: of the very ones, in float64.
    tokenizer = AutoTokenizer.from_pretrained(thinker)
    student = AutoModelForCausalLM.from_pretrained(thinker, dtype=torch.float64)
    total, count = 0.0, 0
    for row in read_samples(tmp_path / "two/samples/step_000001.parquet"):
        problem = Problem(row["problem_id"], row["question"], row["solution"])
        ids = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        loss, num = answer_loss(tokenizer, student, problem, ids)
        total, count = total + float(loss), count + num
    assert ours["answer_loss"] == pytest.approx(total / count, rel=0.05)
    assert 0 < ours["grad_norm"] < 1e3


def test_a_whole_vocabulary_needs_the_same_tokens(opd_words, qwen_student, tmp_path):
    changes = [f"teacher_model={qwen_student}", "opd.support=full"]
    with pytest.raises(ConfigError, match=r"take opd\.support=sampled"):
        run_here(opd_words(tmp_path / "run", *changes), "student_opd")


def test_a_teacher_with_another_tokenizer(opd_words, qwen_student, tmp_path):
    output = run_here(opd_words(tmp_path / "run", f"teacher_model={qwen_student}"), "student_opd")
    row = train_rows(output)[1]
    assert row["loss"] > 0
    assert row["judged_tokens"] > 5
