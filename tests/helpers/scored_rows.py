"""Rows of score_traces with numbers that a test gives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def row(
    problem: str, sample: int, r_ss: float, r_kl: float, explanation: str = "It is 72.", **changed
) -> dict:
    """Return one scored explanation; its mean divergence is a third of r_kl."""
    return {
        "problem_id": problem,
        "sample_index": sample,
        "question": "How many clips?",
        "solution": "72",
        "explanation": explanation,
        "num_tokens": 5,
        "well_formed": True,
        "score": r_ss - r_kl,
        "breakdown": {"r_ss": r_ss, "r_kl": r_kl, "r_ss_mean": r_ss, "r_kl_mean": r_kl / 3},
        "why": None,
        **changed,
    }


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """Write rows as a stage writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
