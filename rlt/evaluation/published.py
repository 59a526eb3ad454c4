"""Accuracies that others have published for the models of the paper, in percent, to be beside ours.

`V` was read in a released model card, `I` comes from an independent paper that re-evaluated the released
models (arXiv 2509.22637; 32, 2 and 8 samples a problem), `N` is what several reading notes of the paper agree
on. What is unverified or conflicting is not here.

A published number says something about a run only where both were measured alike; `unlike` says in what they
were not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlt.evaluation.protocol import Facts
from rlt.evaluation.summary import Numbers

TASKS = ("aime24", "math500", "gpqa_diamond")
TRUST = {
    "V": "read in the model card",
    "I": "independent re-evaluation, 32/2/8 samples",
    "N": "reading notes of the paper agree",
}


SKYTHOUGHT_WORDS = "SkyThought's"
"""What `prompt_source` in summary.json says of a task that was asked in SkyThought's words."""


@dataclass(frozen=True)
class Protocol:
    """How published numbers were measured; None is what is not known."""

    num_samples: Mapping[str, int]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    extraction: str | None = None
    unfinished: str | None = None
    prompt_source: str | None = None


_NUM_PROBLEMS = {"aime24": 30, "math500": 500, "gpqa_diamond": 198}
_SKYTHOUGHT = Protocol(
    num_samples=dict.fromkeys(TASKS, 1),
    temperature=0.0,
    top_p=1.0,
    max_tokens=32768,
    extraction="skythought",
    unfinished="whole",
    prompt_source=SKYTHOUGHT_WORDS,
)
PROTOCOLS = {
    "V": _SKYTHOUGHT,
    "N": _SKYTHOUGHT,
    "I": Protocol(num_samples={"aime24": 32, "math500": 2, "gpqa_diamond": 8}),
}
"""By trust. Of the re-evaluation no more than the number of samples is known here."""


def unlike(trust: str, task: str, numbers: Numbers, facts: Facts) -> list[str]:
    """Return in what a task was measured otherwise than published numbers; none where they are comparable.

    `numbers` are the task's in summary.json, `facts` the rest of that file.
    """
    return list(_unlike(PROTOCOLS[trust], task, numbers, facts))


def _unlike(theirs: Protocol, task: str, numbers: Numbers, facts: Facts) -> Iterator[str]:
    if numbers["num_problems"] != _NUM_PROBLEMS[task]:
        yield f"{numbers['num_problems']} of {_NUM_PROBLEMS[task]} problems"
    if numbers["samples_per_problem"] != theirs.num_samples[task]:
        yield f"{numbers['samples_per_problem']:g} samples a problem, not {theirs.num_samples[task]}"
    sampling, grading = facts["sampling"], facts.get("grading", {})
    for name, ours, other in (
        ("temperature", sampling["temperature"], theirs.temperature),
        ("top_p", sampling["top_p"], theirs.top_p),
        ("at most tokens", sampling["max_tokens"], theirs.max_tokens),
        ("answers read by rules", grading.get("extraction"), theirs.extraction),
        ("unfinished thoughts", grading.get("unfinished"), theirs.unfinished),
    ):
        if other is not None and ours != other:
            yield f"{name} {ours}, not {other}"
    if theirs.temperature is None:
        yield "temperature, length and words are not known there"
    if theirs.prompt_source and facts.get("prompt_source", {}).get(task) != theirs.prompt_source:
        yield f"asked in other words than {theirs.prompt_source}"


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
