"""Sampled explanations with their scores as table rows, and the means of scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rlt.formats.layout import TeacherLayout
from rlt.formats.leakage import copied_share, states_first
from rlt.records import Completion, Problem, Score
from rlt.rewards.likelihood import is_scorable


def sample_rows(
    layout: TeacherLayout,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    scores: Sequence[Score],
) -> list[dict[str, Any]]:
    """Return one row per completion: problem, text, lengths, reward and its parts, what it gives away."""
    decode = layout.tokenizer.decode
    explanations = [str(decode(list(layout.split(c.token_ids).token_ids))) for c in completions]
    return [
        {
            "problem_id": problem.id,
            "question": problem.question,
            "solution": problem.solution,
            "explanation": explanation,
            "completion": decode(list(completion.token_ids)),
            "num_tokens": len(completion.token_ids),
            "finish_reason": completion.finish_reason,
            "reward": score.reward,
            **score.parts,
            "solution_copied": copied_share(problem.solution, explanation),
            "solution_first": states_first(problem.question, problem.solution, explanation),
        }
        for problem, completion, score, explanation in zip(
            problems, completions, scores, explanations, strict=True
        )
    ]


def number_samples(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row its `sample_index` among the rows of its problem."""
    seen: dict[str, int] = defaultdict(int)
    for row in rows:
        row["sample_index"] = seen[row["problem_id"]]
        seen[row["problem_id"]] += 1


def mean_parts(scores: Sequence[Score], prefix: str) -> dict[str, float]:
    """Return the means of reward and parts over the scorable completions, and how many were not."""
    scorable = [score for score in scores if is_scorable(score)]
    metrics = {f"{prefix}_unscorable": float(len(scores) - len(scorable))}
    if scorable:
        metrics[f"{prefix}_reward"] = sum(score.reward for score in scorable) / len(scorable)
        for name in scorable[0].parts:
            metrics[f"{prefix}_{name}"] = sum(score.parts[name] for score in scorable) / len(scorable)
    return metrics
