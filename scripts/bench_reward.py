#!/usr/bin/env python3
"""Time and memory of the student-likelihood reward, as one JSON line.

    .venv/bin/python scripts/bench_reward.py
    .venv/bin/python scripts/bench_reward.py --completions 16 --tokens 4096 --shapes 64x2 --repeats 1

Three ways on the same random models and the same token ids, in turn, in one process:

- reward: ours, with the teacher's log-probabilities given (`reward`) and computed (`reward_with_teacher`);
- floor: one batched forward pass of the student's backbone, then LM head and log-softmax at the counted
  positions only, row by row, with a whole row of the vocabulary at a time;
- plain: both models one sequence after the other, with the log-softmax of all positions.

A ratio below 1 to the floor is what keeping logits in the cache gains. Memory is the peak of scoring with
both models, above the models; a peak while they were made counts too, so it is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.config.compose import compose
from rlt.formats.layout import StudentLayout
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import TAG_STYLES
from rlt.models.frozen import FrozenModel
from rlt.models.logprobs import Request, add_token_query
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import vocabulary
from rlt.records import Explanation, Problem
from rlt.rewards.formula import RewardSpec
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer

TEMPERATURE = 0.7
TEACHER_PROMPT = 100
"""Tokens that the teacher reads before the explanation."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each explanation")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--shapes", nargs="+", default=["64x2", "256x4"], help="HIDDENxLAYERS")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name != "shapes"}
    shapes = {}
    for shape in options.shapes:  # each in a process of its own, whose peak of memory is its own
        with get_context("spawn").Pool(1) as pool:
            shapes[shape] = pool.apply(measure, (options, *map(int, shape.split("x"))))
    print(json.dumps({"benchmark": "reward", **settings, "shapes": shapes}))


def measure(options: argparse.Namespace, hidden: int, layers: int) -> dict[str, Any]:
    """Return seconds, ratios and memory for one shape of both models."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = Accelerator(cpu=not torch.cuda.is_available()).device
    teacher, student = (tiny_qwen2(options.vocabulary, hidden, layers).to(device) for _ in range(2))
    frozen = {}
    for name, model in (("teacher", teacher), ("student", student)):
        add_token_query(model)
        frozen[name] = FrozenModel(model, device, rests_on_cpu=False, collective=False)
    config = compose(["run_cfg=teacher_rl"])
    budget = config.reward.tokens_per_batch
    tags = TAG_STYLES["bespoke"]
    layout = StudentLayout(build_tokenizer(vocabulary()), tags, default_student_prompt(tags))
    scorer = StudentScorer(frozen["student"], layout, temperature=TEMPERATURE, tokens_per_batch=budget)
    reward = LikelihoodReward([WeightedStudent("student", scorer)], RewardSpec.from_config(config))

    problems = [Problem(str(i), "7*9+7*3+4", "8 is the answer") for i in range(options.completions)]
    ids = torch.randint(0, options.vocabulary, (options.completions, options.tokens)).tolist()
    explanations = [Explanation(tuple(row), has_end_tag=True, text_after_end_tag=False) for row in ids]
    prompt = list(range(TEACHER_PROMPT))
    asked = [Request([*prompt, *row], range(len(prompt), len(prompt) + len(row))) for row in ids]
    sequences, positions = sequences_of(layout, problems, explanations)

    def with_teacher() -> Any:
        logprobs = frozen["teacher"].logprobs(asked, temperature=TEMPERATURE, tokens_per_batch=budget)
        return reward.score(problems, explanations, logprobs)

    # Before anything else is computed: the peak of a process never falls.
    before = psutil.Process().memory_info().rss
    with_teacher()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    given = frozen["teacher"].logprobs(asked, temperature=TEMPERATURE, tokens_per_batch=budget)
    ways: dict[str, Callable[[], Any]] = {
        "reward": lambda: reward.score(problems, explanations, given),
        "floor": lambda: floor(student, sequences, positions, device),
        "reward_with_teacher": with_teacher,
        "plain": lambda: plain(teacher, student, asked, sequences, positions, options.tokens, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for _ in range(options.repeats):  # in turn, so that a busy machine slows all
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - start)
    return {
        "seconds": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
        "reward_to_floor": ratio(seconds["reward"], seconds["floor"]),
        "plain_to_reward_with_teacher": ratio(seconds["plain"], seconds["reward_with_teacher"]),
        "memory_above_models_mib": round(memory / 2**20, 1),
        "largest_difference": check(results),
    }


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median ratio of the repeats."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def tiny_qwen2(vocabulary_size: int, hidden: int, layers: int) -> Qwen2ForCausalLM:
    """Return a small random Qwen2 in float32."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary_size,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8192,
        )
    ).eval()


def sequences_of(
    layout: StudentLayout, problems: list[Problem], explanations: list[Explanation]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the student's sequences and the counted positions, explanation first."""
    sequences, positions = [], []
    for problem, explanation in zip(problems, explanations, strict=True):
        prefix, suffix = layout.prefix_ids(problem), layout.suffix(problem)
        start, end = len(prefix), len(prefix) + len(explanation.token_ids)
        solution = range(end + suffix.solution.start, end + suffix.solution.stop)
        sequences.append([*prefix, *explanation.token_ids, *suffix.ids])
        positions.append([*range(start, end), *solution])
    return sequences, positions


@torch.no_grad()
def floor(
    model: Qwen2ForCausalLM, sequences: list[list[int]], positions: list[list[int]], device: torch.device
) -> list[torch.Tensor]:
    """Return the log-probabilities of the counted positions of each sequence."""
    width = max(map(len, sequences))
    ids = torch.tensor([s + [0] * (width - len(s)) for s in sequences], device=device)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    results = []
    for row, counted in enumerate(positions):
        at = torch.tensor(counted, device=device)
        logprobs = torch.log_softmax(model.lm_head(hidden[row, at - 1]).float() / TEMPERATURE, dim=-1)
        results.append(logprobs.gather(1, ids[row, at].unsqueeze(1)).squeeze(1))
    return results


@torch.no_grad()
def plain(
    teacher: Qwen2ForCausalLM,
    student: Qwen2ForCausalLM,
    asked: list[Request],
    sequences: list[list[int]],
    positions: list[list[int]],
    num_tokens: int,
    device: torch.device,
) -> list[float]:
    """Return the rewards of the released recipe, one sequence after the other."""

    def logprobs(model: Qwen2ForCausalLM, sequence: list[int]) -> torch.Tensor:
        ids = torch.tensor([sequence], device=device)
        all_TV = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float() / TEMPERATURE, -1)
        return all_TV[:-1].gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1)

    rewards = []
    for request, sequence, counted in zip(asked, sequences, positions, strict=True):
        log_t = logprobs(teacher, list(request.ids))[-num_tokens:]
        log_s = logprobs(student, sequence)[torch.tensor(counted, device=device) - 1]
        d, ell = log_t - log_s[:num_tokens], log_s[num_tokens:]
        r_ss = ell.mean() + 0.01 * ell.min()
        rewards.append(float(r_ss - 3 * d.mean() - 0.03 * d.max()))
    return rewards


def check(results: dict[str, Any]) -> float:
    """Return the largest difference of what must be equal."""
    rewards = {name: [s.reward for s in results[name]] for name in ("reward", "reward_with_teacher")}
    means = [
        (score.parts["r_ss_mean"], row[-int(score.parts["solution_tokens"]) :].mean().item())
        for score, row in zip(results["reward"], results["floor"], strict=True)
    ]
    pairs = [
        *means,
        *zip(rewards["reward"], rewards["reward_with_teacher"], strict=True),
        *zip(rewards["reward"], results["plain"], strict=True),
    ]
    largest = max(abs(a - b) for a, b in pairs)
    assert largest < 1e-3, "the ways disagree"
    return float(f"{largest:.2g}")


if __name__ == "__main__":
    main()
