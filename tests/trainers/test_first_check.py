"""The prompts of the check before the first step, and what it says of two sides that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlt.config.compose import compose
from rlt.models.plain import PlainModel
from rlt.stages.rl import drift_limit, rounding, starting_weights
from rlt.trainers.first_check import check_prompts, difference, num_sampled


def test_the_long_prompt_leaves_room_for_what_is_sampled():
    long, short = check_prompts([[1, 2, 3], [4, 5]], 300)
    assert long == [1, 2, 3, 4, 5] * 47 + [1]  # 236 ids, and 64 to sample
    assert short == long[-64:]


def test_a_small_context_has_one_prompt():
    assert check_prompts([[1, 2, 3]], 10) == [[1, 2, 3, 1, 2]]
    assert num_sampled(10) == 5
    assert [len(prompt) for prompt in check_prompts([[7]], 191)] == [127]
    assert [len(prompt) for prompt in check_prompts([[7]], 192)] == [128, 64]


def test_the_difference_by_hand():
    drift = difference((-1.0, -2.0), (-1.5, -2.1))
    assert (drift.mean, drift.max) == pytest.approx((0.3, 0.5))


def words(*changes: str) -> list[str]:
    return ["run_cfg=teacher_rl", "model_name_or_path=org/model", "student_model=org/student", *changes]


def test_the_limit_holds_where_the_samples_of_a_step_are_not_the_policys_own():
    shaped = compose(words("generation.top_p=0.9"))
    assert (drift_limit(shaped), rounding(shaped)) == (float("inf"), 0.05)
    exact = compose(words("model.dtype=float32", "generation.dtype=float32"))
    assert rounding(exact) == 0.001
    assert rounding(compose(words("generation.drift_limit=0.2"))) == 0.2


def test_the_weights_that_a_run_starts_with(tmp_path: Path):
    fresh = compose(words("model.revision=abc"))
    assert starting_weights(fresh, None) == PlainModel("org/model", "bfloat16", "abc")
    adapted = compose(words("model.lora.rank=4"))
    assert starting_weights(adapted, None) == PlainModel("org/model", "bfloat16")  # new ones change nothing
    assert "in the trainer alone" in str(starting_weights(adapted, tmp_path))
    assert starting_weights(fresh, tmp_path) == f"{tmp_path} holds no whole weights"
    (tmp_path / "model.safetensors").touch()
    assert starting_weights(fresh, tmp_path) == PlainModel(str(tmp_path), "bfloat16")
