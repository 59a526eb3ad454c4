"""The likelihood reward with components: sums by hand, NaN, texts from the very ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from helpers.rewards_cases import closed
from test_scorer import World, completion_ids, make_world, one_student, problem_of

from rlt.errors import DataError
from rlt.formats.encode import TokenBytes
from rlt.rewards.components.component import Explained
from rlt.rewards.components.composite import CompositeReward, WeightedComponent
from rlt.rewards.components.length import LengthPenalty
from rlt.rewards.likelihood import is_scorable

CASES = [closed("unicode", "数学 café 👩\u200d👧"), closed("short", "So."), closed("pieces", "7", "2")]


@dataclass
class Given:
    """A component of given values that keeps what it was asked."""

    name: str
    given: list[float]
    asked: list[Explained] = field(default_factory=list)

    def values(self, rows: Sequence[Explained]) -> list[float]:
        self.asked += rows
        return self.given[: len(rows)]


@pytest.fixture(scope="module")
def world(tiny_tokenizer) -> World:
    return make_world(tiny_tokenizer, len(tiny_tokenizer))


def score(world: World, components: list[WeightedComponent], cases=CASES, **options):
    explanations = [world.teacher_layout.split(completion_ids(world.tokenizer, case)) for case in cases]
    problems = [problem_of(case) for case in cases]
    teacher = [torch.zeros(len(e.token_ids)) for e in explanations]
    likelihood = one_student(world.scorer)
    reward = CompositeReward(likelihood, components, TokenBytes(world.tokenizer), **options)
    measured = reward.measure(problems, explanations, teacher)
    return likelihood.score(problems, explanations, teacher), reward.judge(problems, explanations, measured)


def test_components_are_added_by_their_weights(world):
    components = [
        WeightedComponent(Given("a", [1.0, -2.0, 0.0]), 0.5),
        WeightedComponent(Given("b", [0.25, 0.0, 8.0]), -2.0),
    ]
    before, after = score(world, components)
    gained = [ours.reward - theirs.reward for ours, theirs in zip(after, before, strict=True)]
    assert gained == pytest.approx([0.5 - 0.5, -1, -16])
    for ours, theirs, a, b in zip(after, before, [1, -2, 0], [0.25, 0, 8], strict=True):
        assert ours.parts == {**theirs.parts, "component/a": a, "component/b": b}


def test_a_row_without_value_is_unscorable_and_no_other_one(world):
    _, after = score(world, [WeightedComponent(Given("a", [1.0, math.nan, math.inf]), 0.5)])
    assert [is_scorable(s) for s in after] == [True, False, False]
    assert math.isnan(after[1].parts["component/a"])


def test_components_read_the_text_of_the_very_ids(world):
    given = Given("a", [0.0] * 3)
    score(world, [WeightedComponent(given, 1.0)])
    assert [row.text for row in given.asked] == ["数学 café 👩\u200d👧", "So.", "72"]
    assert [row.problem.id for row in given.asked] == ["unicode", "short", "pieces"]
    lengths = LengthPenalty(0, 1)
    _, after = score(world, [WeightedComponent(lengths, 1.0)])
    assert [s.parts["component/length"] for s in after] == [1 - s.parts["explanation_tokens"] for s in after]


def test_without_rows_components_are_still_asked(world):
    """As a process without held-out problems is, while others sample answers together with it."""
    calls = []

    def everywhere(call):
        calls.append(call())
        return calls[-1]

    _, after = score(world, [WeightedComponent(Given("a", []), 1.0)], cases=[], everywhere=everywhere)
    assert after == []
    assert calls == [[]]


def test_a_failure_goes_the_way_that_reaches_every_process(world):
    class Failing(Given):
        def values(self, rows):  # noqa: ARG002
            raise DataError("not today")

    def everywhere(call):
        try:
            return call()
        except DataError as error:
            raise DataError(f"{error} (said everywhere)") from error

    with pytest.raises(DataError, match=r"not today \(said everywhere\)"):
        score(world, [WeightedComponent(Failing("a", []), 1.0)], everywhere=everywhere)


def test_components_read_the_students_log_probabilities_of_the_solution(world):
    given = Given("a", [0.0] * 3)
    before, _ = score(world, [WeightedComponent(given, 1.0)])
    for row, alone in zip(given.asked, before, strict=True):
        assert len(row.solution_logprobs) == alone.parts["solution_tokens"]
        assert min(row.solution_logprobs) == alone.parts["r_ss_min"]
