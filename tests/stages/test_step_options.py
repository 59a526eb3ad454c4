"""Options of one step beside the released recipe's: correction, cut completions, estimators, losses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import rl_words, run_here, train_rows, weights
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from rlt.errors import GenerationError
from rlt.rundir.samples import read_samples
from rlt.trainers.reading import ReadOnce

pytestmark = pytest.mark.slow
CORRECTED = "trainer_args.vllm_importance_sampling_correction=true"


@pytest.fixture(scope="module")
def closing_teacher(tiny_teacher: Path, toy_problems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that has learnt to close its tag, most of the time."""
    words = {
        "run_cfg": "teacher_sft",
        "model_name_or_path": tiny_teacher,
        "dataset_id_or_path": toy_problems,
        "output_dir": tmp_path_factory.mktemp("closing") / "sft",
        "model.dtype": "float32",
        "data.max_length": 512,
        "train_batch_size": 12,
        "per_device_train_batch_size": 12,
        "learning_rate": 2e-3,
        "trainer.max_steps": 60,
        "trainer.save_steps": 0,
        "trainer.logging_steps": 20,
        "trainer.gradient_checkpointing": "false",
        "report_to": "null",
    }
    return run_here([f"{key}={value}" for key, value in words.items()], "teacher_sft")


@pytest.fixture(scope="module")
def step(closing_teacher: Path, tiny_student: Path, toy_problems: Path, tmp_path_factory):
    """Return a function that runs one step of the same samples with some options changed."""
    folder = tmp_path_factory.mktemp("steps")

    def run(name: str, *changes: str) -> Path:
        once = ["trainer.max_steps=1", "max_completion_length=20", "temperature=1.6", *changes]
        return run_here(rl_words(closing_teacher, tiny_student, toy_problems, folder / name, *once))

    return run


@pytest.fixture(scope="module")
def plain(step) -> Path:
    return step("plain")


def samples(run: Path) -> list[dict]:
    return read_samples(run / "samples" / "step_000001.parquet")


def without(rows: list[dict], *keys: str) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in keys} for row in rows]


def test_some_samples_are_whole_and_some_are_cut(plain: Path):
    reasons = [row["finish_reason"] for row in samples(plain)]
    assert set(reasons) == {"stop", "length"}  # or the tests below show nothing
    logged = train_rows(plain)[1]
    assert logged["completions/clipped_ratio"] == reasons.count("length") / 8
    whole = [row["num_tokens"] for row in samples(plain) if row["finish_reason"] == "stop"]
    assert logged["completions/mean_terminated_length"] == pytest.approx(sum(whole) / len(whole))


def test_rewards_are_the_same_when_the_correction_reuses_the_log_probabilities(step, plain: Path):
    for ours, theirs in zip(samples(step("corrected", CORRECTED)), samples(plain), strict=True):
        for key in ("reward", "r_kl", "r_kl_max", "advantage"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-4), key
        assert ours["completion"] == theirs["completion"]


def test_masking_the_truncated_leaves_rewards_and_changes_the_loss(step, plain: Path):
    masked = step("masked", "trainer.mask_truncated=true", CORRECTED)
    for ours, theirs in zip(samples(masked), samples(plain), strict=True):
        assert ours["reward"] == pytest.approx(theirs["reward"], rel=1e-4)
    assert (
        0 < train_rows(masked)[1]["grad_norm"] != pytest.approx(train_rows(plain)[1]["grad_norm"], rel=1e-3)
    )


def test_a_completion_that_was_stopped_at_its_tag_is_whole(step, plain: Path):
    stopped = step("stopped", "generation.stop_at_tag=true", "trainer.mask_truncated=true")
    rows = samples(stopped)
    assert all(row["completion"].endswith("<|end_of_explanation|>") != row["missing_tag"] for row in rows)
    assert [row["finish_reason"] == "length" for row in rows] == [row["missing_tag"] == 1 for row in rows]
    logged = train_rows(stopped)[1]
    assert logged["completions/clipped_ratio"] == logged["missing_tag"] < 1
    assert logged["grad_norm"] > 0
    assert [row["explanation"] for row in rows] == [row["explanation"] for row in samples(plain)]


def test_engine_log_probabilities_give_the_same_reward_while_there_is_no_drift(step, plain: Path):
    for ours, theirs in zip(
        samples(step("engine", "reward.teacher_logprobs=engine")), samples(plain), strict=True
    ):
        assert ours["reward"] == pytest.approx(theirs["reward"], rel=1e-4)


def test_engine_log_probabilities_that_are_not_the_policys_stop_the_run(step, monkeypatch):
    import rlt.trainers.engine as engine

    sample = engine.LocalEngine.sample

    def off_by_a_little(self, *args):
        completions = sample(self, *args)
        return [replace(c, logprobs=tuple(v - 0.01 for v in c.logprobs)) for c in completions]

    monkeypatch.setattr(engine.LocalEngine, "sample", off_by_a_little)
    with pytest.raises(
        GenerationError, match=r"differ by 0\.01, and reward\.teacher_logprobs=engine is exact only"
    ):
        # A limit that lets the comparison before the first step pass: exactness is asked for in the step.
        step("drifting", "reward.teacher_logprobs=engine", "generation.drift_limit=1")


def test_samples_that_are_shaped_on_purpose_raise_no_alarm(step):
    shaped = step("shaped", "generation.top_p=0.5")
    assert train_rows(shaped)[1]["drift/mean"] > 0.001
    assert "engine drift: " not in (shaped / "log.txt").read_text()


def test_without_a_reference_there_is_no_kl_and_every_loss_type_runs(step, plain: Path):
    free = step("free", "trainer.beta=0", "trainer.loss_type=dapo", "trainer.scale_rewards=batch")
    assert "kl" not in train_rows(free)[1]
    assert without(samples(free), "advantage") == without(samples(plain), "advantage")
    assert samples(free) != samples(plain)


def test_the_students_own_surprise_needs_no_teacher(step, plain: Path):
    for ours, theirs in zip(
        samples(step("nll", "reward.kl_estimator=student_nll")), samples(plain), strict=True
    ):
        assert ours["r_ss"] == theirs["r_ss"]
        assert ours["r_kl_mean"] > max(0, theirs["r_kl_mean"])  # -log p_S >= log p_T - log p_S


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_the_correction_in_the_update_is_trls_without_its_pass(step, monkeypatch, mode: str):
    """Nobody else reads the policy's log-probabilities here; with top_p the samples are not its own."""
    passes, policy_logprobs = [], ReadOnce.policy_logprobs

    def counting(self, requests, *runs, **options):
        passes.append(len(requests))
        return policy_logprobs(self, requests, *runs, **options)

    monkeypatch.setattr(ReadOnce, "policy_logprobs", counting)
    changes = [CORRECTED, f"trainer_args.vllm_importance_sampling_mode={mode}", "generation.top_p=0.8"]
    changes += ["trainer_args.vllm_importance_sampling_clip_max=1.2", "reward.kl_estimator=student_nll"]
    ours = step(f"ours_{mode}", *changes)
    assert not passes
    monkeypatch.setattr(ReadOnce, "_corrects_in_update", False)
    theirs = step(f"theirs_{mode}", *changes)
    assert sum(passes) == 8
    mine, trls = train_rows(ours)[1], train_rows(theirs)[1]
    ratio = "sampling/importance_sampling_ratio"
    for name in ("loss", "grad_norm", f"{ratio}/min", f"{ratio}/max", f"{ratio}/mean"):
        # TRL takes the mean over processes of their means; here there is one process.
        assert mine[name] == pytest.approx(trls[name], rel=1e-4, abs=1e-6), name
    assert mine[f"{ratio}/min"] < 0.9  # or there would be nothing to correct
    before, after = weights(ours), weights(theirs)
    assert max((before[n] - after[n]).abs().max().item() for n in before) < 1e-6


def test_short_passes_keep_their_activations_and_the_update_stays(step, plain: Path, monkeypatch):
    """A layer with gradient checkpointing runs twice in a pass, and once without."""
    layer, passes = Qwen2DecoderLayer.forward, []

    def counting(self, hidden_states, *args, **kwargs):
        if torch.is_grad_enabled() and self.training:
            passes.append(hidden_states.shape[0] * hidden_states.shape[1])
        return layer(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(Qwen2DecoderLayer, "forward", counting)
    auto = "trainer.gradient_checkpointing=auto"
    all_anew = step("all_anew", auto)  # nobody knows what fits a CPU
    num_layers, sizes = 2, Counter(passes)
    assert all(count % (2 * num_layers) == 0 for count in sizes.values())
    above = sorted(sizes)[len(sizes) // 2 - 1]
    assert above < max(sizes)  # or no pass would be left to be computed anew
    passes.clear()
    some = step("some_anew", auto, f"trainer.recompute_above={above}")
    for size, count in sizes.items():
        assert Counter(passes)[size] == (count // 2 if size <= above else count), size
    for run in (all_anew, some):
        ours, theirs = weights(run), weights(plain)
        assert max((ours[n] - theirs[n]).abs().max().item() for n in ours) < 1e-6
