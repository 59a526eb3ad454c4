"""Students with another tokenizer, and several students at once."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.rewards_cases import ADVERSARIAL
from test_scorer import (
    BESPOKE,
    CPU,
    RELEASED,
    STUDENT_SYSTEM,
    TEMPERATURE,
    World,
    completion_ids,
    make_world,
    one_student,
    problem_of,
    random_model,
    spelled_ids,
    text_ids,
)

from rlt.formats.encode import TokenBytes
from rlt.formats.layout import StudentLayout
from rlt.models.frozen import FrozenModel
from rlt.models.logprobs import Request, add_token_query, token_logprobs
from rlt.records import Problem
from rlt.rewards.formula import combine_students
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer) -> World:
    return make_world(tiny_tokenizer, len(tiny_tokenizer))


def other_student(tokenizer, seed: int, teacher_bytes: TokenBytes | None) -> StudentScorer:
    model = random_model(len(tokenizer), seed)
    add_token_query(model)
    return StudentScorer(
        FrozenModel(model, CPU, rests_on_cpu=False, collective=False),
        StudentLayout(tokenizer, BESPOKE, STUDENT_SYSTEM),
        temperature=TEMPERATURE,
        tokens_per_batch=2048,
        teacher_bytes=teacher_bytes,
    )


def test_the_teachers_own_tokenizer_gives_the_same_result_by_way_of_the_text(tiny, tiny_tokenizer):
    """But for ids that no tokenizer would choose for their text: those become other tokens."""
    of = TokenBytes(tiny_tokenizer)
    by_text = StudentScorer(
        tiny.scorer.student,
        tiny.scorer.layout,
        temperature=TEMPERATURE,
        tokens_per_batch=2048,
        teacher_bytes=of,
    )
    compared = 0
    for case in ADVERSARIAL:
        explanation = tiny.teacher_layout.split(completion_ids(tiny_tokenizer, case))
        text = b"".join(map(of, explanation.token_ids)).decode(errors="replace")
        if spelled_ids(tiny_tokenizer, text) != list(explanation.token_ids):
            continue
        teacher = torch.linspace(-3, -1, len(explanation.token_ids))
        args = [problem_of(case)], [explanation], [teacher]
        (ours,), (theirs,) = one_student(by_text).score(*args), one_student(tiny.scorer).score(*args)
        assert ours.parts == pytest.approx(theirs.parts, abs=1e-5), case.name
        assert ours.reward == pytest.approx(theirs.reward, abs=1e-5), case.name
        compared += 1
    assert compared >= 15


def test_a_student_with_another_tokenizer_by_an_independent_computation(tiny, tiny_tokenizer, qwen_tokenizer):
    """The tiny teacher spells digits and signs apart; Qwen has tokens like `).\n\n` and ` answer`."""
    scorer = other_student(qwen_tokenizer, 3, TokenBytes(tiny_tokenizer))
    problem = Problem("p", "What is 36 * 2?", "The answer is 72")
    text = "Twice 36 (that is 30 and 6). So 60 + 12 = 72.\n\n"
    ids = text_ids(tiny_tokenizer, text)
    explanation = tiny.teacher_layout.split([*ids, *text_ids(tiny_tokenizer, "<|end_of_explanation|>")])
    assert list(explanation.token_ids) == ids
    teacher = -torch.rand(len(ids), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (score,) = one_student(scorer).score([problem], [explanation], [teacher])

    # By hand: the student's sequence in its own tokens, in float64.
    own = text_ids(qwen_tokenizer, text)
    prefix, suffix = scorer.layout.prefix_ids(problem), scorer.layout.suffix(problem)
    model = scorer.student._module.double()
    with torch.no_grad():
        logits_TV = model(torch.tensor([[*prefix, *own, *suffix.ids]])).logits[0] / TEMPERATURE
    model.float()

    def log_p(place: int, token: int) -> float:
        return float(logits_TV[place - 1, token] - logits_TV[place - 1].logsumexp(0))

    start = len(prefix)
    log_s = [log_p(start + i, token) for i, token in enumerate(own)]
    d = []
    i = j = 0
    left = right = ""
    sum_t = sum_s = 0.0
    while i < len(ids) or j < len(own):  # walk along both, always on the side that lags
        if len(left) <= len(right) and i < len(ids):
            left, sum_t, i = left + tiny_tokenizer.decode(ids[i]), sum_t + float(teacher[i]), i + 1
        else:
            right, sum_s, j = right + qwen_tokenizer.decode(own[j]), sum_s + log_s[j], j + 1
        if len(left) == len(right):
            assert left == right
            d.append(sum_t - sum_s)
            sum_t = sum_s = 0.0
    assert 10 < len(d) < len(ids)
    solution = range(start + len(own) + suffix.solution.start, start + len(own) + suffix.solution.stop)
    whole = [*prefix, *own, *suffix.ids]
    ell = [log_p(place, whole[place]) for place in solution]
    assert qwen_tokenizer.decode([whole[p] for p in solution]) == problem.solution
    expected = sum(ell) / len(ell) + 0.01 * min(ell) - (3 * sum(d) / len(d) + 0.03 * max(d))
    assert score.reward == pytest.approx(expected, abs=1e-4)
    assert score.parts["r_kl_max"] == pytest.approx(max(d), abs=1e-4)
    assert score.parts["explanation_tokens"] == len(ids)


def test_without_a_teacher_the_students_own_tokens_count(tiny, tiny_tokenizer, qwen_tokenizer):
    scorer = other_student(qwen_tokenizer, 3, TokenBytes(tiny_tokenizer))
    spec = replace(RELEASED, kl_estimator="student_nll")
    problem, text = Problem("p", "1+1?", "2"), "Two of them.\n\n"
    explanation = tiny.teacher_layout.split(text_ids(tiny_tokenizer, text))
    (score,) = one_student(scorer, spec).score([problem], [explanation], [None])
    own, prefix = text_ids(qwen_tokenizer, text), scorer.layout.prefix_ids(problem)
    request = Request([*prefix, *own], range(len(prefix), len(prefix) + len(own)))
    (log_s,) = token_logprobs(
        scorer.student._module, [request], temperature=TEMPERATURE, tokens_per_batch=999, device=CPU
    )
    assert score.parts["r_kl_mean"] == pytest.approx(-log_s.mean().item(), abs=1e-5)


def named(**rows: tuple[float, float]) -> dict[str, dict[str, torch.Tensor]]:
    """Return parts of one row for students given as (r_ss, r_kl); the format is -1."""
    return {
        name: {
            "reward": torch.tensor([r_ss - r_kl - 1.0]).double(),
            "r_ss": torch.tensor([r_ss]).double(),
            "r_kl": torch.tensor([r_kl]).double(),
            "format": torch.tensor([-1.0]).double(),
        }
        for name, (r_ss, r_kl) in rows.items()
    }


def test_several_students_by_hand():
    students = named(small=(-2.0, 0.5), large=(-1.0, 2.5))  # -2.5 and -3.5 before the format
    mean = combine_students(students, [1.0, 1.0], "mean")
    assert {k: v.item() for k, v in mean.items()} == pytest.approx(
        {"reward": -4.0, "r_ss": -1.5, "r_kl": 1.5, "format": -1.0, "small/r_ss": -2.0, "small/r_kl": 0.5}
        | {"large/r_ss": -1.0, "large/r_kl": 2.5}
    )
    assert combine_students(students, [3.0, 1.0], "mean")["reward"].item() == pytest.approx(-3.75)
    low = combine_students(students, [1.0, 1.0], "min")
    assert (low["reward"].item(), low["r_ss"].item(), low["r_kl"].item()) == (-4.5, -1.0, 2.5)


def test_a_student_of_nan_is_never_outvoted():
    students = named(a=(-2.0, 0.5), b=(math.nan, 0.5))
    for how in ("mean", "min"):
        assert math.isnan(combine_students(students, [1.0, 1.0], how)["reward"].item())


def test_two_students_together_are_the_mean_of_each_alone(tiny, tiny_tokenizer):
    second = other_student(tiny_tokenizer, 7, None)
    both = LikelihoodReward(
        [WeightedStudent("first", tiny.scorer), WeightedStudent("second", second, weight=2.0)], RELEASED
    )
    cases = ADVERSARIAL[:6]
    problems = [problem_of(case) for case in cases]
    explanations = [tiny.teacher_layout.split(completion_ids(tiny_tokenizer, c)) for c in cases]
    teacher = [torch.full((len(e.token_ids),), -1.5) for e in explanations]
    args = problems, explanations, teacher
    first, other = one_student(tiny.scorer).score(*args), one_student(second).score(*args)
    for together, a, b in zip(both.score(*args), first, other, strict=True):
        assert together.reward == pytest.approx((a.reward + 2 * b.reward) / 3, abs=1e-6)
        assert together.parts["second/r_ss"] == pytest.approx(b.parts["r_ss"], abs=1e-6)
