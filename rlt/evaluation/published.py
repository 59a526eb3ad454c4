"""Accuracies that others have published for the models of the paper, in percent, to stand beside ours.

`V` was read in a released model card, `I` comes from an independent paper that re-evaluated the released
models (arXiv 2509.22637; 32, 2 and 8 samples a problem), `N` is what several reading notes of the paper agree
on. What is unverified or conflicting is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ("aime24", "math500", "gpqa_diamond")
TRUST = {
    "V": "read in the model card",
    "I": "independent re-evaluation, 32/2/8 samples",
    "N": "reading notes of the paper agree",
}


@dataclass(frozen=True)
class Published:
    """The accuracies of one model under TASKS."""

    model: str
    aime24: float
    math500: float
    gpqa_diamond: float
    trust: str

    def accuracy(self, task: str) -> float | None:
        """Return the accuracy in a task, None where there is none."""
        return getattr(self, task) if task in TASKS else None


PUBLISHED = (
    Published("Qwen2.5-7B-Instruct", 10.0, 74.2, 33.3, "N"),
    Published("Bespoke-Stratos-7B", 20.0, 82.0, 37.8, "V"),
    Published("Bespoke-Stratos-7B", 19.6, 82.2, 39.0, "I"),
    Published("RLT-7B", 23.3, 82.8, 42.4, "N"),
    Published("RLT-7B", 22.8, 84.3, 41.6, "I"),
    Published("Bespoke-Stratos-32B", 63.3, 93.0, 58.1, "V"),
    Published("Bespoke-Stratos-32B", 55.4, 92.6, 57.6, "I"),
    Published("RLT-32B", 66.7, 93.4, 59.6, "N"),
    Published("RLT-32B", 56.8, 93.5, 59.1, "I"),
    Published("7B, RL without a cold start", 13.3, 74.2, 34.8, "N"),
    Published("7B, RL after a cold start on Bespoke-Stratos", 16.7, 82.8, 45.4, "N"),
    Published("7B, RL after a cold start on RLT traces", 26.7, 84.0, 40.9, "N"),
)
