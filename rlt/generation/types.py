"""The generation protocol: token ids in, token ids and their log-probabilities out.

A back end is an object with these methods; `transformers_backend.py` and `vllm_pool.py` are the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlt.records import Completion


@dataclass(frozen=True)
class Sampling:
    """Everything that decides a sample. All of it is sent with every request: a model's own
    generation_config never fills a gap."""

    temperature: float
    """0 is greedy."""
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    top_p: float = 1.0
    top_k: int = 0
    """0 is off."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_strings: tuple[str, ...] = ()
    """Generation ends after the first of these; the text stays part of the completion."""


class Generator(Protocol):
    """A source of completions for prompts given as token ids."""

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Return n completions for each prompt, in order. `seeds[i]` seeds the samples of prompt i.

        Raises GenerationError with the engine's own last words when it fails or takes too long.
        """
        ...
