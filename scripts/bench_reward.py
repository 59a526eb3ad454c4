#!/usr/bin/env python3
"""Time and memory of the student-likelihood reward against its floor, as one JSON line.

    .venv/bin/python scripts/bench_reward.py

The reward scores explanations of given token ids with the teacher's log-probabilities given. The floor is
what cannot be left out: one batched forward pass of the student's backbone over the same sequences, and LM
head and log-softmax at the counted positions, row by row. Both run in this process, on the same model.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import torch
from accelerate import Accelerator
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.config.compose import compose
from rlt.formats.layout import StudentLayout
from rlt.formats.prompts import default_student_prompt
from rlt.formats.tags import TAG_STYLES
from rlt.models.frozen import FrozenModel
from rlt.models.logprobs import add_token_query
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import vocabulary
from rlt.records import Explanation, Problem
from rlt.rewards.formula import RewardSpec
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer

TEMPERATURE = 0.7


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each explanation")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    model = tiny_qwen2(options.vocabulary, options.hidden)
    add_token_query(model)
    tokenizer = build_tokenizer(vocabulary())
    tags = TAG_STYLES["bespoke"]
    layout = StudentLayout(tokenizer, tags, default_student_prompt(tags))
    device = Accelerator(cpu=not torch.cuda.is_available()).device
    student = FrozenModel(model.to(device), device, rests_on_cpu=False, collective=False)
    config = compose(["run_cfg=teacher_rl"])
    tokens_per_batch = config.reward.tokens_per_batch
    scorer = StudentScorer(student, layout, temperature=TEMPERATURE, tokens_per_batch=tokens_per_batch)
    reward = LikelihoodReward([WeightedStudent("student", scorer)], RewardSpec.from_config(config))
    problems = [Problem(str(i), "7*9+7*3+4", "8 is the answer") for i in range(options.completions)]
    ids = torch.randint(0, options.vocabulary, (options.completions, options.tokens)).tolist()
    explanations = [Explanation(tuple(row), has_end_tag=True, text_after_end_tag=False) for row in ids]
    teacher = [-10 * torch.rand(options.tokens) for _ in ids]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scores, reward_seconds = timed(lambda: reward.score(problems, explanations, teacher), 1)
    extra_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sequences, positions = floor_inputs(layout, problems, explanations)
    reference, floor_seconds = timed(lambda: floor(model, sequences, positions, device), 1)
    largest = check(scores, reference, options.tokens)
    for _ in range(options.repeats - 1):  # alternating, so that a busy machine slows both
        reward_seconds += timed(lambda: reward.score(problems, explanations, teacher), 1)[1]
        floor_seconds += timed(lambda: floor(model, sequences, positions, device), 1)[1]
    ratios = [r / f for r, f in zip(reward_seconds, floor_seconds, strict=True)]
    print(
        json.dumps(
            {
                "benchmark": "reward",
                "device": str(device),
                "threads": options.threads,
                "completions": options.completions,
                "explanation_tokens": options.tokens,
                "vocabulary": options.vocabulary,
                "hidden": options.hidden,
                "reward_seconds": round(statistics.median(reward_seconds), 3),
                "floor_seconds": round(statistics.median(floor_seconds), 3),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(r, 3) for r in ratios],
                "extra_memory_mib": round(extra_mib, 1),
                "largest_difference_of_r_ss_mean": largest,
            }
        )
    )


def tiny_qwen2(vocabulary_size: int, hidden: int) -> Qwen2ForCausalLM:
    """Return a small random Qwen2 with a full vocabulary, in float32."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary_size,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
        )
    ).eval()


def floor_inputs(
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


def check(scores, reference, num_tokens: int) -> float:
    """Return the largest difference of the mean solution log-probability; both compute the same."""
    differences = [
        abs(score.parts["r_ss_mean"] - row[num_tokens:].mean().item())
        for score, row in zip(scores, reference, strict=True)
    ]
    assert max(differences) < 1e-3, "the reward and its floor disagree"
    return float(f"{max(differences):.2g}")


def timed(call, repeats: int):
    """Return the last result and the seconds of each repeat."""
    seconds = []
    result = None
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return result, seconds


if __name__ == "__main__":
    main()
