"""What a vLLM server says of itself before a run relies on it, in a line."""

from __future__ import annotations

from rlt.errors import GenerationError, first_line
from rlt.generation.vllm_server import VLLMServer

_TIMEOUT = 10.0


def health(server: VLLMServer) -> str:
    """Return the address of a server, whether it is healthy, and what it serves."""
    try:
        server.get("/health", timeout=_TIMEOUT)
        models = server.get("/v1/models", timeout=_TIMEOUT)
        version = server.get("/version", timeout=_TIMEOUT, missing_ok=True)
        with server.reading("GET /v1/models"):
            card = models["data"][0]
            words = ["healthy", f"serves {card['id']}"]
            words += [f"{card['max_model_len']:,} tokens"] if card.get("max_model_len") else []
        with server.reading("GET /version"):
            words += [f"vLLM {version['version']}"] if version else []
    except GenerationError as error:
        why = first_line(error).removeprefix(f"the vLLM server at {server.address} ")
        return f"server {server.address}: NOT USABLE, {why}"
    return f"server {server.address}: {', '.join(words)}"
