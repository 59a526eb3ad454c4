"""Samples with their scores as table rows, and the means of scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from accelerate.utils import gather_object

from rlt.records import Completion, Problem, Score
from rlt.rewards.likelihood import is_scorable
from rlt.rundir.samples import SampleRow


def sample_row(problem: Problem, completion: Completion, text: str, score: Score) -> SampleRow:
    """Return a completion's row: problem, text, length, reward and its parts."""
    return {
        "problem_id": problem.id,
        "question": problem.question,
        "solution": problem.solution,
        "completion": text,
        "num_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "reward": score.reward,
        **score.parts,
    }


def number_samples(rows: Sequence[SampleRow]) -> None:
    """Give each row its `sample_index` among the rows of its problem."""
    seen: dict[str, int] = defaultdict(int)
    for row in rows:
        row["sample_index"] = seen[row["problem_id"]]
        seen[row["problem_id"]] += 1


def mean_parts(scores: Sequence[Score], prefix: str) -> dict[str, float]:
    """Return the means of reward and parts over the scorable completions, and how many were not.

    The reward is NaN where none was.
    """
    scorable = [score for score in scores if is_scorable(score)]
    metrics = {f"{prefix}_unscorable": float(len(scores) - len(scorable)), f"{prefix}_reward": math.nan}
    if scorable:
        metrics[f"{prefix}_reward"] = sum(score.reward for score in scorable) / len(scorable)
        for name in scorable[0].parts:
            metrics[f"{prefix}_{name}"] = sum(score.parts[name] for score in scorable) / len(scorable)
    return metrics


def lengths_by_ending(completions: Sequence[Completion]) -> dict[str, float]:
    """Return which share of all processes' completions was cut, and how long the others are; collective."""
    found = [(c.finish_reason == "length", len(c.token_ids)) for c in completions]
    rows: list[tuple[bool, int]] = gather_object(found)
    whole = [length for is_cut, length in rows if not is_cut] or [0]
    return {
        "clipped_ratio": sum(is_cut for is_cut, _ in rows) / len(rows),
        "mean_terminated_length": sum(whole) / len(whole),
        "min_terminated_length": float(min(whole)),
        "max_terminated_length": float(max(whole)),
    }
