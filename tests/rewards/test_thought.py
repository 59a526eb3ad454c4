"""The reward of a student's own thought, against log-probabilities computed from ids written out by hand."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from test_scorer import BESPOKE, CPU, END, Recording, chat_ids, part_ids, random_model, text_ids

from rlt.formats.cut import Cut
from rlt.formats.layout import StudentLayout
from rlt.formats.reply import ReplyReader
from rlt.models.logprobs import add_token_query
from rlt.records import Completion, Problem
from rlt.rewards.correctness import CorrectnessReward, CorrectnessWeights
from rlt.rewards.formula import RewardSpec, WeightedReductions
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer
from rlt.rewards.thought import ThoughtReward
from rlt.tasks.graders import GRADERS

SYSTEM, TEMPERATURE = "Think first.", 0.7
SPEC = RewardSpec(
    WeightedReductions((("mean", 1.0), ("min", 0.01))), WeightedReductions(()), kl_estimator="student_nll"
)
OPEN = ("<|begin_of_thought|>", "\n\n")
CLOSE = "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{}\n\n<|end_of_solution|>"
PROBLEM = Problem("p", "36*2", "72")
TURNS = {
    "right": ((*OPEN, "3", "6*2", "=72", "\n\n"), "72"),
    "wrong": ((*OPEN, "3", "6*2", "=71", "\n\n"), "71"),
}


class World:
    """A random student with its layout, and what its forward gives in float64."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.layout = StudentLayout(tokenizer, BESPOKE, SYSTEM, asks_only=True)
        model = random_model(len(tokenizer), 2)
        self.exact = deepcopy(model).double()
        add_token_query(model)
        self.student = Recording(model, CPU, rests_on_cpu=False, collective=False)

    def reward(self, spec: RewardSpec = SPEC, *, weight: float = 1.0, verdicts=None) -> ThoughtReward:
        scorer = StudentScorer(
            self.student, self.layout, temperature=TEMPERATURE, tokens_per_batch=999, reads_turns=True
        )
        likelihood = LikelihoodReward([WeightedStudent("student", scorer)], spec)
        cut = Cut(self.tokenizer, "<|end_of_thought|>", within=self.layout.style.literal)
        return ThoughtReward(likelihood, cut, weight=weight, verdicts=verdicts)

    def score(self, completions: list[Completion], **how):
        reward, problems = self.reward(**how), [PROBLEM] * len(completions)
        replies = [ReplyReader(self.tokenizer, self.layout.style)(c) for c in completions]
        everywhere = lambda call: call()  # noqa: E731
        measured = reward.measure(problems, completions, replies, everywhere=everywhere)
        return reward.judge(problems, measured)

    def completion(self, name: str, finish: str = "stop") -> Completion:
        """Return a whole turn, its thought in tokens that no tokenizer would choose."""
        thought, answer = TURNS[name]
        parts = (*thought, CLOSE.format(answer), END)
        return Completion(tuple(part_ids(self.tokenizer, parts)), (), finish)

    def r_ss(self, thought_ids: list[int]) -> float:
        """Return mean + 0.01 min of log p of `72` after the thought."""
        before = [*chat_ids(self.tokenizer, SYSTEM, "36*2", ""), *thought_ids]
        opening = text_ids(self.tokenizer, CLOSE.partition("{}")[0])
        solution = text_ids(self.tokenizer, "72")
        ids = [*before, *opening, *solution]
        with torch.no_grad():
            logits = self.exact(torch.tensor([ids])).logits[0, -len(solution) - 1 : -1] / TEMPERATURE
        values = logits.log_softmax(-1)[range(len(solution)), solution]
        return (values.mean() + 0.01 * values.min()).item()


@pytest.fixture(scope="module")
def world(tiny_tokenizer) -> World:
    return World(tiny_tokenizer)


def thought_ids(world: World, name: str) -> list[int]:
    return part_ids(world.tokenizer, TURNS[name][0])


def test_the_solution_is_read_after_the_very_ids_of_the_thought(world):
    scores = world.score([world.completion("right"), world.completion("wrong")])
    for score, name in zip(scores, TURNS, strict=True):
        expected = world.r_ss(thought_ids(world, name))
        assert score.reward == score.parts["r_ss"] == pytest.approx(expected, abs=1e-5)
        assert score.parts["well_formed"] == 1.0
        assert score.parts["explanation_tokens"] == len(thought_ids(world, name)) - 1  # without the tag
        assert not {"correct", "r_kl", "missing_tag"} & score.parts.keys()


def test_a_malformed_turn_is_read_whole_and_costs_the_penalty(world):
    cut = Completion(tuple(thought_ids(world, "right")), (), "length")
    [score] = world.score([cut], weight=2.0)
    assert score.reward == pytest.approx(2 * (world.r_ss(thought_ids(world, "right")) - 1), abs=1e-5)
    assert score.parts["well_formed"] == 0.0


def test_beside_a_grader_both_are_paid(world):
    completions = [world.completion("right"), world.completion("wrong")]
    with GRADERS["math"](5.0) as grader:
        verdicts = CorrectnessReward(grader, CorrectnessWeights(right=1.0, form=0.1))
        right, wrong = world.score(completions, weight=0.5, verdicts=verdicts)
    assert right.reward == pytest.approx(1.0 + 0.5 * world.r_ss(thought_ids(world, "right")), abs=1e-5)
    assert wrong.reward == pytest.approx(0.1 + 0.5 * world.r_ss(thought_ids(world, "wrong")), abs=1e-5)
    assert (right.parts["correct"], wrong.parts["correct"]) == (1.0, 0.0)


def test_the_baseline_is_an_empty_thought_read_once_per_problem(world):
    """The difference to nothing between the tags; of two replies to one problem it is asked for once."""
    spec = replace(SPEC, baseline=True)
    reward = world.reward(spec)
    completions = [world.completion("right"), world.completion("wrong")]
    replies = [ReplyReader(world.tokenizer, world.layout.style)(c) for c in completions]
    alone = world.r_ss(part_ids(world.tokenizer, OPEN))
    asked = []
    for runs in ([1, 1], [1, 1], None):
        measured = reward.measure(
            [PROBLEM] * 2, completions, replies, runs=runs, everywhere=lambda call: call()
        )
        asked.append(len(world.student.asked))  # the last question is for baselines
        scores = reward.judge([PROBLEM] * 2, measured)
        for score, name in zip(scores, TURNS, strict=True):
            assert score.reward == pytest.approx(world.r_ss(thought_ids(world, name)) - alone, abs=1e-5)
            assert score.parts["r_ss_baseline"] == pytest.approx(alone, abs=1e-5)
    assert asked == [1, 0, 1]  # kept under `runs`, where its value depends on nothing else
    world.student.version = 1
    reward.measure([PROBLEM] * 2, completions, replies, runs=[1, 1], everywhere=lambda call: call())
    assert len(world.student.asked) == 1  # the student has moved
