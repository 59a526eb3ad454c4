"""The view of a reward by token, beside the reward it explains and an independent computation."""

from __future__ import annotations

from dataclasses import replace
from unicodedata import normalize

import pytest
import torch
from helpers.rewards_cases import ADVERSARIAL
from test_scorer import (
    RELEASED,
    World,
    completion_ids,
    exact_logprobs,
    make_world,
    one_student,
    problem_of,
    text_ids,
)
from test_students import other_student

from rlt.formats.encode import TokenBytes
from rlt.records import Problem
from rlt.rewards.look import look


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer) -> World:
    return make_world(tiny_tokenizer, len(tiny_tokenizer))


def composed(tokens) -> str:
    """Return the tokens' text as Qwen's tokenizer spells it: it composes characters."""
    return normalize("NFC", "".join(t.text for t in tokens))


def test_tokens_add_up_to_the_reward(tiny, tiny_tokenizer):
    cases = [case for case in ADVERSARIAL if case.explanation]
    problems = [problem_of(case) for case in cases]
    explanations = [tiny.teacher_layout.split(completion_ids(tiny_tokenizer, case)) for case in cases]
    teacher = [torch.linspace(-4, -1, len(e.token_ids)) for e in explanations]
    reward = one_student(tiny.scorer)
    views = look(reward, problems, explanations, teacher)
    assert [view.score for view in views] == reward.score(problems, explanations, teacher)
    for case, view, explanation in zip(cases, views, explanations, strict=True):
        log_p, d = [t.logprob for t in view.solution], [t.divergence for t in view.explanation]
        parts = view.score.parts
        assert parts["r_ss_mean"] == pytest.approx(sum(log_p) / len(log_p), abs=1e-5), case.name
        assert parts["r_ss_min"] == pytest.approx(min(log_p), abs=1e-5), case.name
        assert parts["r_kl_mean"] == pytest.approx(sum(d) / len(d), abs=1e-5), case.name
        assert parts["r_kl_max"] == pytest.approx(max(d), abs=1e-5), case.name
        assert composed(view.solution) in normalize("NFC", case.solution)
        assert len(view.explanation) == len(explanation.token_ids)
        by_hand = [t.teacher - t.student for t in view.explanation if t.teacher is not None]
        assert by_hand == pytest.approx(d, abs=1e-6)


def test_without_is_the_student_with_an_empty_thought(tiny, tiny_tokenizer):
    problem = Problem("p", "What is 36 * 2?", "#### 72")
    explanation = tiny.teacher_layout.split(text_ids(tiny_tokenizer, "Twice 36.\n\n"))
    (view,) = look(
        one_student(tiny.scorer), [problem], [explanation], [torch.zeros(99)[: len(explanation.token_ids)]]
    )
    layout = tiny.scorer.layout
    prefix, suffix = layout.prefix_ids(problem), layout.suffix(problem)
    places = [len(prefix) + i for i in range(suffix.solution.start, suffix.solution.stop)]
    bare = exact_logprobs(tiny.student.double(), [*prefix, *suffix.ids], places)
    tiny.student.float()
    assert [t.logprob_without for t in view.solution] == pytest.approx(bare, abs=1e-4)
    assert view.score_without.parts["r_ss_min"] == pytest.approx(min(bare), abs=1e-4)
    assert view.solution[0].gain == view.solution[0].logprob - view.solution[0].logprob_without


@pytest.mark.slow
def test_chunks_of_another_tokenizer_spell_the_explanation(tiny, tiny_tokenizer, qwen_tokenizer):
    scorer = other_student(qwen_tokenizer, 3, TokenBytes(tiny_tokenizer))
    text = "Twice 36 (that is 30 and 6), 数学 e\u0301. So 72.\n\n"
    explanation = tiny.teacher_layout.split(text_ids(tiny_tokenizer, text))
    problem = Problem("p", "What is 36 * 2?", "#### 72")
    teacher = torch.full((len(explanation.token_ids),), -1.0)
    (chunks,) = look(one_student(scorer), [problem], [explanation], [teacher])
    assert composed(chunks.explanation) == normalize("NFC", text)
    assert len(chunks.explanation) < len(explanation.token_ids)
    surprise = one_student(scorer, replace(RELEASED, kl_estimator="student_nll"))
    (tokens,) = look(surprise, [problem], [explanation], [None])
    assert composed(tokens.explanation) == normalize("NFC", text)
    assert all(t.teacher is None and t.divergence == -t.student for t in tokens.explanation)


def test_an_empty_explanation_has_no_tokens(tiny):
    explanation = tiny.teacher_layout.split([])
    problem = Problem("p", "1+1?", "2")
    (view,) = look(one_student(tiny.scorer), [problem], [explanation], [torch.empty(0)])
    assert view.explanation == ()
    assert [t.gain for t in view.solution] == [0.0] * len(view.solution)
