"""Whether a vLLM server is healthy, serves what is expected, and demands a key."""

from __future__ import annotations

import logging
import os
from typing import Any

from rlt.config.server_key import beyond_this_machine
from rlt.generation.completions import complete
from rlt.generation.types import Sampling
from rlt.generation.vllm_server import VLLMServer

logger = logging.getLogger(__name__)
CONTROL_TIMEOUT = 60.0
"""Seconds for requests that compute nothing: health, model name, prefix cache."""


def check_door(server: VLLMServer, timeout: float = CONTROL_TIMEOUT) -> None:
    """Raise if other machines reach a server that answers without a key."""
    if beyond_this_machine(server.address) and not server.demands_key(timeout):
        raise server.failure(
            "answers without a key, so anyone who reaches it can run code there; start it with one, as "
            "python -m rlt.launch.serve does, or set generation.allow_open_servers=true on a network "
            "that you trust",
            with_log=False,
        )


def check_server(
    server: VLLMServer, expected_model: str | None, min_context: int | None, timeout: float
) -> None:
    """Raise unless one server is healthy, generates, and serves what is expected."""
    server.get("/health", timeout=CONTROL_TIMEOUT)
    answer = server.get("/v1/models", timeout=CONTROL_TIMEOUT)
    with server.reading("GET /v1/models"):
        card = answer["data"][0]
        if expected_model is not None and not _same_model(expected_model, card):
            raise server.failure(
                f"serves {card['id']!r} instead of {expected_model!r}; start it with that model"
            )
        context = card.get("max_model_len")
        if min_context is not None and context is not None and context < min_context:
            raise server.failure(
                f"holds {context} tokens where prompt and completion may need {min_context}; start it with "
                f"--max-model-len {min_context}, or lower max_prompt_length or max_completion_length"
            )
    complete(server, [0], 1, Sampling(0.0, 1, ()), 0, timeout, logprobs=False)


def check_logprobs(server: VLLMServer) -> None:
    """Raise if a server's log-probabilities are not those of the distribution that it samples from."""
    mode = _logprobs_mode(server)
    if mode is None:
        logger.warning(
            "the vLLM server at %s runs without VLLM_SERVER_DEV_MODE=1: whether it returns processed "
            "log-probabilities is not known, and weights cannot be pushed to it",
            server.address,
        )
    elif mode != "processed_logprobs":
        raise server.failure(
            f"returns {mode}, which ignore the sampling temperature; start it with "
            "--logprobs-mode processed_logprobs"
        )


def _same_model(expected: str, card: dict[str, Any]) -> bool:
    """Return whether a server's model card names the expected folder or Hub name."""
    names = {card["id"], card.get("root")}
    return expected in names or any(
        name and os.path.realpath(name) == os.path.realpath(expected) for name in names
    )


def _logprobs_mode(server: VLLMServer) -> str | None:
    """Return the server's setting, or None where the development endpoints are off."""
    info = server.get("/server_info", timeout=CONTROL_TIMEOUT, missing_ok=True, config_format="json")
    with server.reading("GET /server_info"):
        return None if info is None else info["vllm_config"]["model_config"]["logprobs_mode"]
