"""A training step in one line. Light: no library is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt.surroundings.timeline import PHASES

# (names in the logs, the first found counts; label in the line)
LINE_KEYS = (
    ("reward", "reward"),
    ("correct", "correct"),
    ("reverse_kl", "reverse_kl"),
    ("divergence", "divergence"),
    ("answer_loss", "answer"),
    ("r_ss", "r_ss"),
    ("r_kl", "r_kl"),
    ("missing_tag", "no tag"),
    ("explanation_tokens", "tokens"),
    ("kl", "kl"),
    ("drift/max", "drift"),
    ("loss", "loss"),
    ("mean_token_accuracy", "accuracy"),
    ("grad_norm", "grad"),
    ("learning_rate", "lr"),
    ("perf/tokens_per_second", "tokens/s"),
    ("perf/mfu", "mfu"),
    ("perf/padding", "padding"),
)
"""Metrics of the line, in its order, and their labels."""


def metrics_text(logs: Mapping[str, Any], prefix: str = "") -> str:
    """Return the metrics that a line shows, as `label value` pairs."""
    found = [(label, logs[prefix + key]) for key, label in LINE_KEYS if prefix + key in logs]
    return "  ".join(f"{label} {_short(value)}" for label, value in found)


def times_text(logs: Mapping[str, Any]) -> str:
    """Return how long the phases of a step took, as `phase 1.5s` pairs; those below 0.01 s are not shown."""
    found = [(phase, logs.get(f"time/{phase}", 0.0)) for phase in PHASES]
    return "  ".join(
        f"{phase} {value:.3g}s" if value >= 1 else f"{phase} {value:.2f}s"
        for phase, value in found
        if value >= 0.01
    )


def _short(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
