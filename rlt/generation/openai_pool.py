"""Servers of any make that speak OpenAI's completions API: text goes out, and text comes back.

Only what that API knows is sent, so samples are shaped by temperature, top_p, max_tokens, stop strings and a
seed alone. The server reads the prompt in its own tokens, and what comes back is counted in ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from typing_extensions import override

from rlt.generation.seeds import spread_seed
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import CONTROL_TIMEOUT, UNLIMITED, VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.records import Completion

logger = logging.getLogger(__name__)
MOST_STOPS = 4
"""Stop strings that the API takes."""


class OpenAIPool(VLLMPool):
    """A source of completions without token ids or log-probabilities: for `stream` alone.

    `encode` and `decode` are those of the student's tokenizer, without tokens of their own at either end.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout: float,
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        key: str | None,
        requests_per_server: int,
    ) -> None:
        super().__init__(addresses, timeout=timeout, key=key, requests_per_server=requests_per_server)
        self._encode = encode
        self._decode = decode
        self._models: dict[str, str] = {}

    @override
    def check(
        self, expected_model: str | None = None, min_context: int | None = None, *, logprobs: bool = True
    ) -> None:
        """Raise unless every server names a model; what a model is called there is the server's affair."""
        for server in self.servers:
            answer = server.get("/v1/models", timeout=CONTROL_TIMEOUT)
            with server.reading("GET /v1/models"):
                self._models[server.address] = str(answer["data"][0]["id"])
            logger.info("server %s: OpenAI's API, serves %s", server.address, self._models[server.address])

    @override
    def show_health(self) -> None:
        """Nothing: the API knows no health; `check` tells what is served."""

    @override
    def check_doors(self, timeout: float = CONTROL_TIMEOUT) -> None:
        """Nothing: who may ask such a server is its owner's affair, and no code of ours runs there."""

    @override
    def versions(self) -> list[str]:
        """Return what the servers call their models."""
        return sorted({f"OpenAI API, model {name}" for name in self._models.values()})

    @override
    def draw(self, server: VLLMServer, prompt: list[int], sampling: Sampling, seed: int) -> Completion:
        """Return one completion; its token ids are those of the text under the student's tokenizer."""
        ends = sampling.stop_token_ids[:MOST_STOPS]
        body = {
            "model": self._models[server.address],
            "prompt": self._decode(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": spread_seed(seed) % 2**31,
            "stop": [self._decode([end]) for end in ends] or None,
        }
        what = f"prompt of {len(prompt)} tokens, max_tokens {sampling.max_tokens}"
        answer = server.post("/v1/completions", body, timeout=UNLIMITED, what=what, retry=True)
        with server.reading(what):
            (choice,) = answer["choices"]
            text, reason = str(choice["text"]), choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise server.failure(f"ended a completion with finish_reason {reason!r}")
        token_ids = (*self._encode(text), *(ends[:1] if reason == "stop" else ()))
        return Completion(token_ids, (), reason)
