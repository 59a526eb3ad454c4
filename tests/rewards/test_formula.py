"""The reward by hand (released coefficients: 1·mean + 0.01·min and 3·mean + 0.03·max)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlt.config.schema import Config
from rlt.rewards.formula import (
    RewardInputs,
    RewardSpec,
    WeightedReductions,
    among_others,
    divergence,
    rlt_reward,
)
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent

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
    r.answer_length_norm, r.answer_group, config.stage = "log", "rank", "teacher_rl"
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
        length_norm="log",
        group="rank",
    )
    config.stage = "score_traces"  # where no group is there as a whole
    assert RewardSpec.from_config(config).group == "none"


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
    assert (spec.length_norm, spec.group) == ("none", "none")
    item = example(solution, dtype=torch.float64)
    if without is not None:
        item = replace(item, baseline_logprobs_S=torch.tensor(without, dtype=torch.float64))
    found = parts(spec, item)
    assert found["reward"] == found["r_ss"] == pytest.approx([expected], abs=1e-7)
    assert ("r_ss_baseline" in found) == (without is not None)


def among(spec: RewardSpec, solutions: list[tuple[float, ...]], keys="pppp", tokens: int = 1) -> list[float]:
    """Return r_SS of explanations of so many tokens beside each other."""
    items = [replace(example(s, (0.0,), dtype=torch.float64), explanation_tokens=tokens) for s in solutions]
    share = lambda rows: (rows, 0)  # noqa: E731
    parts = among_others(spec, rlt_reward(spec, items), keys[: len(items)], share)
    alone = rlt_reward(spec, items)["r_ss"].tolist()
    assert parts["r_ss_alone"].tolist() == pytest.approx(alone, nan_ok=True)
    return parts["r_ss"].tolist()


def preset(name: str, tmp_path, *words: str) -> RewardSpec:
    from rlt.config.compose import compose

    given = ["run_cfg=teacher_rl", f"reward_cfg={name}", "model_name_or_path=m", "dataset_id_or_path=d"]
    return RewardSpec.from_config(compose([*given, f"output_dir={tmp_path}", *words]))


def test_nover_by_hand(tmp_path):
    """The best of four earns 1, the worst 1/4; e tokens of thought halve the log-perplexity, N(e) = 2."""
    spec = preset("nover", tmp_path)
    assert not spec.needs_teacher
    # log p: means -1, -2, -0.5, -3
    solutions = [(-1.0, -1.0), (-2.0,), (0.0, -1.0), (-3.0, -3.0)]
    assert among(spec, solutions) == pytest.approx([3 / 4, 2 / 4, 1.0, 1 / 4])
    # equal ones share the mean of their ranks: (4 + 3) / 2 / 4
    assert among(spec, [(-1.0,), (-1.0,), (-2.0,), (-3.0,)]) == pytest.approx([0.875, 0.875, 0.5, 0.25])
    assert among(spec, [(-1.0,)]) == [1.0]
    item = replace(example((-2.0, -4.0), dtype=torch.float64), explanation_tokens=round(math.e**3))
    # mean -3, of which exp(mean / (1 + log 20)) = exp(-3 / 3.9957323)
    assert rlt_reward(spec, [item])["r_ss"].item() == pytest.approx(math.exp(-3 / 3.9957322736))
    empty = replace(example((-2.0,), (), dtype=torch.float64), explanation_tokens=0)
    assert rlt_reward(spec, [empty])["r_ss"].item() == pytest.approx(math.exp(-2))  # N(0) = 1


def test_a_longer_explanation_of_the_same_perplexity_ranks_higher(tmp_path):
    """As in NOVER, whose N(|t|) grows with the thought: log p / N is nearer to 0."""
    spec = preset("nover", tmp_path)
    items = [replace(example((-2.0,), (0.0,)), explanation_tokens=n) for n in (1, 3)]
    parts = among_others(spec, rlt_reward(spec, items), "pp", lambda rows: (rows, 0))
    assert parts["r_ss"].tolist() == [0.5, 1.0]


def test_jepo_by_hand(tmp_path):
    """p of the solution is 1/2, 1/4 and 1/8 in a group of three: the mean is 7/24."""
    spec = preset("jepo", tmp_path)
    assert not spec.needs_teacher
    halves = [(math.log(1 / 2),), (math.log(1 / 2), math.log(1 / 2)), (math.log(1 / 8), 0.0)]
    expected = [math.log(7 / 24) - math.log(others) for others in (3 / 16, 5 / 16, 3 / 8)]
    assert among(spec, halves) == pytest.approx(expected, abs=1e-12)
    assert among(spec, [(-700.0,), (-701.0,)]) == pytest.approx(  # no underflow
        [math.log((1 + math.exp(1)) / 2), math.log((1 + math.exp(-1)) / 2)], abs=1e-12
    )
    assert among(spec, [(-1.0,)]) == [0.0]


def test_a_group_is_of_one_problem_and_an_unscorable_row_of_none(tmp_path):
    spec = preset("nover", tmp_path)
    found = among(spec, [(-1.0,), (-2.0,), (math.nan,), (-3.0,)], keys="pqpp")
    assert found[:2] == [1.0, 1.0]
    assert math.isnan(found[2])
    assert found[3] == 0.5  # of two: the third has no number


def test_groups_reach_over_processes(tmp_path):
    """A process with the second half of a group finds its ranks among all four."""
    spec = preset("nover", tmp_path)
    mine = rlt_reward(spec, [replace(example((-v,), (0.0,)), explanation_tokens=1) for v in (2.0, 4.0)])
    others = [("p", math.exp(-1.0)), ("p", math.exp(-3.0))]
    assert among_others(spec, mine, "pp", lambda rows: ([*others, *rows], 2))["r_ss"].tolist() == [0.75, 0.25]
    kept = among_others(spec, mine, "pp", lambda rows: ([*others, *rows], 2))
    assert kept["reward"].tolist() == [0.75, 0.25]


def test_no_rows_still_meet_those_of_other_processes():
    """Held-out problems that do not fill all processes: who has none must take part all the same."""
    seen = []
    spec = replace(RELEASED, group="rank")
    reward = LikelihoodReward([WeightedStudent("s", None)], spec, share=lambda rows: (seen.append(rows), 0))  # type: ignore[arg-type]
    assert reward.judge([], [], []) == []
    assert seen == [[]]
