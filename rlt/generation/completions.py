"""One request to a vLLM server for completions, and what it answers."""

from __future__ import annotations

from typing import Any

from rlt.generation.types import Sampling
from rlt.generation.vllm_server import VLLMServer, finite_logprobs
from rlt.records import Completion


def complete(
    server: VLLMServer,
    prompt: list[int],
    n: int,
    sampling: Sampling,
    seed: int,
    timeout: float,
    *,
    logprobs: bool = True,
) -> list[Completion]:
    """Return n completions of one prompt from one server."""
    # vLLM refuses several greedy samples; they would be equal.
    num_requested = n if sampling.temperature > 0 else 1
    body = {
        "prompt": prompt,
        "n": num_requested,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": sampling.max_tokens,
        "min_tokens": 0,
        "stop_token_ids": list(sampling.stop_token_ids),
        # Only the listed ids stop. With False the end-of-sequence ids of the model's folder would as well.
        "ignore_eos": True,
        "stop": list(sampling.stop_strings),
        "include_stop_str_in_output": True,
        "seed": seed,
        "logprobs": 0 if logprobs else None,
        "return_token_ids": True,
        "skip_special_tokens": False,
    }
    what = f"prompt of {len(prompt)} tokens, n {num_requested}, max_tokens {sampling.max_tokens}"
    answer = server.post("/v1/completions", body, timeout=timeout, what=what, retry=True)
    with server.reading(what):
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if len(choices) != num_requested:
            raise server.failure(f"returned {len(choices)} completions for n {num_requested} ({what})")
        completions = [_completion(server, choice, prompt, logprobs) for choice in choices]
    return completions if num_requested == n else completions * n


def _completion(server: VLLMServer, choice: dict[str, Any], prompt: list[int], logprobs: bool) -> Completion:
    """Return one choice of an answer as a record, or raise if it is not usable."""
    if choice.get("token_ids") is None:
        raise server.failure("returned no token ids; it is older than vLLM 0.22, and this project needs 0.29")
    if choice.get("prompt_token_ids") not in (None, prompt):
        raise server.failure("generated from other prompt ids than the ones sent")
    if choice["finish_reason"] not in ("stop", "length"):
        raise server.failure(f"ended a completion with finish_reason {choice['finish_reason']!r}")
    token_ids = tuple(choice["token_ids"])
    if not set(map(type, token_ids)) <= {int}:
        raise server.failure(f"returned token ids that are no whole numbers: {token_ids!r:.80}")
    if not logprobs:
        return Completion(token_ids, (), choice["finish_reason"])
    values = finite_logprobs(server, (choice.get("logprobs") or {}).get("token_logprobs"), len(token_ids))
    return Completion(token_ids, values, choice["finish_reason"])
