"""The reward by hand (released coefficients: 1·mean + 0.01·min and 3·mean + 0.03·max)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlt.config.schema import Config
from rlt.rewards.formula import RewardInputs, RewardSpec, WeightedReductions, divergence, rlt_reward

SOLUTION = WeightedReductions((("mean", 1.0), ("min", 0.01)))
DIVERGENCE = WeightedReductions((("mean", 3.0), ("max", 0.03)))
RELEASED = RewardSpec(SOLUTION, DIVERGENCE)


def example(solution=(-1.0, -3.0), kl=(0.5, 0.1), *, tag=True, after=False, dtype=torch.float32):
    """Return inputs with the given solution log-probabilities and teacher-minus-student differences."""
    student = torch.full((len(kl),), -2.0, dtype=dtype)
    teacher = student + torch.tensor(list(kl), dtype=dtype)
    return RewardInputs(torch.tensor(list(solution), dtype=dtype), student, teacher, len(student), tag, after)


def parts(spec: RewardSpec, *items: RewardInputs) -> dict[str, list[float]]:
    return {name: value.tolist() for name, value in rlt_reward(spec, items).items()}


def reward(spec: RewardSpec, item: RewardInputs) -> float:
    return parts(spec, item)["reward"][0]


def test_rlt_reward_by_hand():
    # solution: mean(-1, -3) + 0.01 * min = -2.03;  KL: 3 * mean(0.5, 0.1) + 0.03 * max = 0.915
    result = parts(RELEASED, example())
    assert {name: value[0] for name, value in result.items()} == pytest.approx(
        {
            "reward": -2.945,
            "r_ss": -2.03,
            "r_ss_mean": -2.0,
            "r_ss_min": -3.0,
            "r_kl": 0.915,
            "r_kl_mean": 0.3,
            "r_kl_max": 0.5,
            "format": 0.0,
            "missing_tag": 0.0,
            "text_after_tag": 0.0,
            "explanation_tokens": 2.0,
            "solution_tokens": 2.0,
        },
        abs=1e-6,
    )


def test_each_example_stands_alone_in_a_batch():
    items = [example(), example((-4.0,), (1.0, -1.0, 3.0)), example((-1.0, -1.0, -7.0), (), tag=False)]
    together = parts(RELEASED, *items)["reward"]
    # -4 - 0.04 - 3 * 1 - 0.03 * 3;  -3 - 0.07 - 3.03 - 1
    assert together == pytest.approx([-2.945, -7.13, -7.1], abs=1e-6)
    assert together == [reward(RELEASED, item) for item in items]
    assert parts(RELEASED, *reversed(items))["reward"] == together[::-1]


def test_the_divergence_is_signed():
    # a token the student likes better than the teacher lowers the mean: (0.5 - 1.5) / 2 = -0.5
    assert parts(RELEASED, example(kl=(0.5, -1.5)))["r_kl"][0] == pytest.approx(3 * -0.5 + 0.03 * 0.5)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [math.log(2), -math.log(2)]),
        ("k3", [0.5 - 1 + math.log(2), 2 - 1 - math.log(2)]),
        ("student_nll", [2.0, 2.0]),
    ],
)
def test_estimators_by_hand(estimator, expected):
    item = example(kl=(math.log(2), -math.log(2)), dtype=torch.float64)
    assert divergence(replace(RELEASED, kl_estimator=estimator), item).tolist() == pytest.approx(expected)


def test_student_nll_needs_no_teacher():
    spec = replace(RELEASED, kl_estimator="student_nll")
    item = replace(example(), teacher_logprobs_T=None)
    assert not spec.needs_teacher
    assert parts(spec, item)["r_kl"][0] == pytest.approx(3 * 2 + 0.03 * 2)
    assert RELEASED.needs_teacher
    with pytest.raises(AssertionError, match="teacher"):
        rlt_reward(RELEASED, [item])


@pytest.mark.parametrize("estimator", ["k1", "k3", "student_nll"])
def test_empty_explanation_has_its_declared_value(estimator):
    """Upstream 5: with the released coefficients 3 * 1 + 0.03 * 1; never a bonus, whatever the estimator."""
    spec = replace(RELEASED, kl_estimator=estimator)
    result = parts(spec, example(kl=(), tag=True))
    assert result["r_kl"][0] == pytest.approx(3.03)
    assert result["reward"][0] == pytest.approx(-2.03 - 3.03)
    assert result["explanation_tokens"] == [0.0]
    shaped = replace(spec, divergence=replace(spec.divergence, transform="one_minus_exp", clip=(0.0, 0.5)))
    assert parts(shaped, example(kl=()))["r_kl"][0] == pytest.approx(3.03)  # past clip and transform
    twice = replace(spec, empty_explanation_divergence=2.0)
    assert reward(twice, example(kl=())) == pytest.approx(-2.03 - 6.06)


def test_empty_solution_is_never_a_number():
    """Upstream 6. The layout refuses it earlier; if one came here it would not be 3.4e36."""
    assert math.isnan(reward(RELEASED, example(solution=())))
    assert math.isfinite(parts(RELEASED, example(solution=()), example())["reward"][1])


@pytest.mark.parametrize("where", ["solution", "student", "teacher"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_stay(where, value):
    """Upstream 7."""
    item = example()
    target = {
        "solution": item.solution_logprobs_S,
        "student": item.student_logprobs_T,
        "teacher": item.teacher_logprobs_T,
    }[where]
    target[1] = value
    rewards = parts(RELEASED, item, example())["reward"]
    assert not math.isfinite(rewards[0])
    assert rewards[1] == pytest.approx(-2.945)


@pytest.mark.parametrize(
    ("tag", "after", "missing_penalty", "after_penalty", "expected"),
    [
        (True, False, 1.0, 0.5, 0.0),
        (False, False, 1.0, 0.5, -1.0),
        (True, True, 1.0, 0.0, 0.0),  # as released: counted, not punished
        (True, True, 1.0, 0.5, -0.5),
        (False, False, 2.5, 0.5, -2.5),
        (False, False, 0.0, 0.0, 0.0),
    ],
)
def test_format_penalties(tag, after, missing_penalty, after_penalty, expected):
    spec = replace(RELEASED, missing_tag_penalty=missing_penalty, text_after_tag_penalty=after_penalty)
    result = parts(spec, example(tag=tag, after=after))
    assert result["format"] == [expected]
    assert result["reward"][0] == pytest.approx(-2.945 + expected)
    assert (result["missing_tag"], result["text_after_tag"]) == ([float(not tag)], [float(after)])


def test_clip_comes_before_the_transform():
    """Upstream 12: a clip after exp() did nothing."""
    spec = replace(
        RELEASED,
        solution=WeightedReductions((("mean", 1.0),), "exp", clip=(-1.0, 0.0)),
        divergence=WeightedReductions((("sum", 1.0),), "one_minus_exp", clip=(0.0, math.log(2))),
    )
    # exp(max(-3, -1)) = 0.3679 and exp(-0.5) = 0.6065;  1 - exp(-min(5, log 2)) = 0.5 and 1 - exp(-0) = 0
    result = parts(spec, example(solution=(-3.0, -0.5), kl=(5.0, -4.0)))
    assert result["r_ss"][0] == pytest.approx((math.exp(-1) + math.exp(-0.5)) / 2)
    assert result["r_kl"][0] == pytest.approx(0.5)
    assert (result["r_ss_min"], result["r_kl_max"]) == ([-3.0], [5.0])  # logged as they are


def test_a_clip_does_not_hide_nan():
    spec = replace(RELEASED, solution=WeightedReductions((("mean", 1.0),), clip=(-1.0, 0.0)))
    assert math.isnan(reward(spec, example(solution=(math.nan, -1.0))))


def test_no_weights_is_zero():
    """Upstream 13: a coefficient of 0 crashed."""
    nothing = WeightedReductions(())
    assert parts(RewardSpec(nothing, nothing), example())["reward"] == [0.0]
    zero = WeightedReductions((("mean", 0.0), ("min", 0.0)))
    assert parts(RewardSpec(zero, zero), example())["reward"] == [0.0]


def test_maths_is_float64_whatever_comes_in():
    """Upstream 9: differences and means of bfloat16 values were rounded to bfloat16."""
    item = example(solution=(-1.0, -1.0, -1.0078125), kl=(0.5, 0.25, 0.125), dtype=torch.bfloat16)
    result = rlt_reward(RELEASED, [item])
    assert all(value.dtype == torch.float64 for value in result.values())
    assert result["r_ss_mean"].item() == pytest.approx(-3.0078125 / 3, abs=1e-12)
    assert result["r_kl_mean"].item() == pytest.approx(0.875 / 3, abs=1e-12)


def test_released_recipe_from_config(tmp_path):
    from rlt.config.compose import compose

    overrides = [
        "run_cfg=teacher_rl",
        "model_name_or_path=m",
        "dataset_id_or_path=d",
        f"output_dir={tmp_path}",
    ]
    assert RewardSpec.from_config(compose(overrides)) == RELEASED


def test_every_setting_reaches_the_spec():
    config = Config()
    config.answer_log_prob_coeff, config.kl_penalty_reward_coeff = [2.0], [4.0, 5.0, 6.0]
    r = config.reward
    r.answer_reductions, r.kl_reductions = ["median"], ["sum", "min", "last_quartile"]
    r.answer_transform, r.kl_transform = "exp", "one_minus_exp"
    r.answer_clip, r.kl_clip = [-9.0, 0.0], [0.0, 3.0]
    r.answer_baseline, r.answer_result_transform, r.answer_result_clip = True, "exp", [0.0, 1.0]
    r.kl_estimator = "k3"
    r.missing_tag_penalty, r.text_after_tag_penalty, r.empty_explanation_divergence = 0.25, 0.5, 0.75
    assert RewardSpec.from_config(config) == RewardSpec(
        WeightedReductions((("median", 2.0),), "exp", (-9.0, 0.0)),
        WeightedReductions((("sum", 4.0), ("min", 5.0), ("last_quartile", 6.0)), "one_minus_exp", (0.0, 3.0)),
        "k3",
        0.25,
        0.5,
        0.75,
        baseline=True,
        result_transform="exp",
        result_clip=(0.0, 1.0),
    )


@pytest.mark.parametrize(
    ("preset", "solution", "without", "expected"),
    [
        ("verifree", (-1.0, -3.0), None, 0.0183156),  # exp(-4)
        (
            "rlpr",
            (-1.0, -3.0),
            (-2.0, -4.0),
            0.1320078,
        ),  # (0.3678794 + 0.0497871 - 0.1353353 - 0.0183156) / 2
        ("rlpr", (-2.0, -4.0), (-1.0, -3.0), 0.0),  # an explanation that harms
        ("vr_cli", (-1.0, -3.0), (-2.0, -4.0), 0.6321206),  # 1 - exp(2) / exp(3)
        ("vr_cli", (-2.0, -4.0), (-1.0, -3.0), -1.7182818),  # 1 - exp(3) / exp(2)
    ],
)
def test_rewards_of_other_papers_by_hand(preset, solution, without, expected, tmp_path):
    from rlt.config.compose import compose

    words = ["run_cfg=teacher_rl", f"reward_cfg={preset}", "student_model=s", "model_name_or_path=m"]
    spec = RewardSpec.from_config(compose([*words, "dataset_id_or_path=d", f"output_dir={tmp_path}"]))
    assert not spec.needs_teacher
    item = example(solution, dtype=torch.float64)
    if without is not None:
        item = replace(item, baseline_logprobs_S=torch.tensor(without, dtype=torch.float64))
    found = parts(spec, item)
    assert found["reward"] == found["r_ss"] == pytest.approx([expected], abs=1e-7)
    assert ("r_ss_baseline" in found) == (without is not None)
