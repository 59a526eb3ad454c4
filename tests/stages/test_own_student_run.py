"""The policy and its reference as the student of teacher_rl, against the same model frozen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.stage_runs import later_win, rl_words, run_here, run_processes, succeed

from rlt.rundir.samples import read_samples

pytestmark = pytest.mark.slow
CHANGES = ["trainer.max_steps=2", "learning_rate=1e-2", "trainer.ref_sync_steps=0", "trainer.beta=0.04"]
CHANGES += ["reward.answer_group=rank", "reward.answer_baseline=true"]


@pytest.fixture(scope="module")
def samples(tiny_teacher, toy_problems, tmp_path_factory):
    """Return a function that runs two steps and gives the samples of both."""

    def run(student: str) -> list[list[dict]]:
        output = tmp_path_factory.mktemp("own") / "run"
        is_own = student in ("policy", "reference")
        words = rl_words(tiny_teacher, Path(student), toy_problems, output, *CHANGES)
        words = [word for word in words if not (is_own and word.startswith("reward.dtype"))]
        run_here(words)
        if is_own:
            assert "student" not in json.loads((output / "run.json").read_text())["inputs"]
        return [read_samples(output / "samples" / f"step_00000{step}.parquet") for step in (1, 2)]

    return run


@pytest.fixture(scope="module")
def frozen(samples, tiny_teacher) -> list[list[dict]]:
    return samples(str(tiny_teacher))


def of(table: list[dict], name: str) -> list[float]:
    return [row[name] for row in table]


def test_a_reference_that_stays_pays_what_the_model_at_the_start_pays(samples, frozen):
    for ours, theirs in zip(samples("reference"), frozen, strict=True):
        assert of(ours, "completion") == of(theirs, "completion")
        for name in ("r_ss_alone", "r_ss_baseline", "r_kl", "reward"):
            assert of(ours, name) == pytest.approx(of(theirs, name), abs=1e-4)


def test_the_policy_pays_as_it_is_in_each_step(samples, frozen):
    first, second = samples("policy")
    assert of(first, "completion") == of(frozen[0], "completion")
    assert of(first, "r_ss_alone") == pytest.approx(of(frozen[0], "r_ss_alone"), abs=1e-4)
    assert of(first, "reward") == pytest.approx(of(frozen[0], "reward"), abs=1e-4)
    assert of(second, "completion") == of(frozen[1], "completion")  # the same update so far
    moved = zip(of(second, "r_ss_baseline"), of(frozen[1], "r_ss_baseline"), strict=True)
    assert all(abs(ours - theirs) > 1e-3 for ours, theirs in moved)


def test_ranks_are_within_each_problem(frozen):
    for table in frozen:
        for question in {row["question"] for row in table}:
            group = [row for row in table if row["question"] == question]
            assert len(group) == 4
            ordered = sorted(group, key=lambda row: row["r_ss_alone"])
            assert [row["r_ss"] for row in ordered] == sorted(row["r_ss"] for row in group)
            assert sum(row["r_ss"] for row in group) == pytest.approx(2.5)  # (1 + 2 + 3 + 4) / 4


@pytest.mark.parametrize("student", ["policy", "reference"])
def test_adapters_under_zero3_pay_what_they_do_in_one_process(
    student, tiny_teacher, toy_problems, frozen, tmp_path
):
    """The reference is the model without its adapters; both are read where the weights are sharded."""
    pytest.importorskip("peft")
    words = rl_words(tiny_teacher, Path(student), toy_problems, tmp_path / "one", *CHANGES)
    words = later_win(*words, "learning_rate=1e-3")  # so that rounding changes no sample of the second step
    words = [word for word in words if not word.startswith("reward.dtype")] + ["model.lora.rank=4"]
    run_here(words)
    sharded = [f"output_dir={tmp_path / 'two'}" if word.startswith("output_dir=") else word for word in words]
    succeed(run_processes("zero3", sharded))
    for step in (1, 2):
        ours, theirs = (
            sorted(read_samples(tmp_path / run / "samples" / f"step_00000{step}.parquet"), key=identity)
            for run in ("two", "one")
        )
        assert of(ours, "completion") == of(theirs, "completion")
        for name in ("r_ss_alone", "r_ss_baseline", "r_kl", "reward"):
            assert of(ours, name) == pytest.approx(of(theirs, name), abs=1e-3), name
        at_start = sorted(frozen[step - 1], key=identity)
        is_as_at_start = of(ours, "r_ss_baseline") == pytest.approx(of(at_start, "r_ss_baseline"), abs=1e-4)
        assert is_as_at_start == (step == 1 or student == "reference")


def identity(row: dict) -> tuple[str, str]:
    return row["problem_id"], row["completion"]
