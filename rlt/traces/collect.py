"""The samples of a collection: which are drawn, under which seed, and what is read out of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TagStyle
from rlt.generation.seeds import spread_seed
from rlt.records import Completion, Explanation, Problem
from rlt.traces.journal import Key

CUT = "cut by max_completion_length"
NO_TAG = "no closing explanation tag"
EMPTY = "empty"


@dataclass(frozen=True)
class Prompted:
    """A problem with the teacher's prompt."""

    problem: Problem
    prompt_ids: list[int]


@dataclass(frozen=True)
class Sample:
    """One explanation that is to be drawn."""

    row: Prompted
    sample_index: int

    @property
    def key(self) -> Key:
        """What a sample is known by."""
        return self.row.problem.id, self.sample_index

    @property
    def prompt_ids(self) -> list[int]:
        """What the teacher is asked with."""
        return self.row.prompt_ids

    def seed(self, seed: int) -> int:
        """Return the sample's own seed: no other sample's number, place or company moves it."""
        return spread_seed(seed, int(self.row.problem.id, 16), self.sample_index)


Requested = Mapping[str, Sequence[int]]
"""By problem_id, the samples to draw; none means as many as of any problem."""


def plan_samples(
    rows: Sequence[Prompted], num_samples: int, first_index: int = 0, requested: Requested | None = None
) -> list[Sample]:
    """Return the samples in the order of the rows, `num_samples` of each.

    They are numbered within their problem, from `first_index` on, over all rows that hold it. Samples that
    `requested` asks for by number are drawn once.
    """
    next_index: dict[str, int] = defaultdict(lambda: first_index)
    samples: dict[Key, Sample] = {}
    for row in rows:
        start = next_index[row.problem.id]
        indices = (requested or {}).get(row.problem.id) or range(start, start + num_samples)
        next_index[row.problem.id] = start + num_samples
        for index in indices:
            samples.setdefault((row.problem.id, index), Sample(row, index))
    return list(samples.values())


def samples_digest(samples: Sequence[Sample]) -> str:
    """Return a hash of the samples' keys and prompts."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps([sample.key, sample.row.prompt_ids]).encode() + b"\n")
    return digest.hexdigest()


def read_sample(sample: Sample, completion: Completion, layout: TeacherLayout) -> dict[str, Any]:
    """Return the sample's line of the journal: the explanation as the reward sees it, and its faults."""
    explanation = layout.split(completion.token_ids)
    text = str(layout.tokenizer.decode(list(explanation.token_ids)))
    return {
        "problem_id": sample.row.problem.id,
        "sample_index": sample.sample_index,
        "explanation": text,
        "num_tokens": len(explanation.token_ids),
        "finish_reason": completion.finish_reason,
        "why": why_malformed(explanation, text, completion.finish_reason, layout.tags),
    }


def why_malformed(explanation: Explanation, text: str, finish_reason: str, tags: TagStyle) -> str | None:
    """Return why an explanation is not well formed, or None.

    A tag inside of it would make the student's turn one that nobody can take apart.
    """
    if not explanation.has_end_tag:
        return CUT if finish_reason == "length" else NO_TAG
    if not text.strip():
        return EMPTY
    tag = next((tag for tag in tags.strings if tag in text), None)
    return tag and f"contains {tag}"


def summarize(made: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of a collection, as run.json holds them."""
    rows = list(made)
    malformed = Counter(row["why"] for row in rows if row["why"] is not None)
    num_tokens = sum(row["num_tokens"] for row in rows)
    return {
        "problems": len({row["problem_id"] for row in rows}),
        "explanations": len(rows),
        "well_formed": len(rows) - malformed.total(),
        "malformed": dict(sorted(malformed.items())),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
        "tokens": num_tokens,
        "mean_tokens": round(num_tokens / max(len(rows), 1), 1),
    }
