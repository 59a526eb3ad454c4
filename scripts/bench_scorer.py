#!/usr/bin/env python3
"""Tokens a second of a frozen student on a GPU, and its share of the card's matrix rate, as one JSON line.

    .venv/bin/python scripts/bench_scorer.py   # 0.5B and 7B shapes in bfloat16
    .venv/bin/python scripts/bench_scorer.py --shapes tiny --completions 4 --tokens 64   # tries it on a CPU

Weights are random. The matrix rate is that of one large product of the same dtype, measured in the same run.
Operations are counted as 2 per weight and token of the layers, 4 x hidden x (tokens before it) per token and
layer for attention, and 2 x hidden x vocabulary per counted position. Needs neither TRL nor DeepSpeed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.models.logprobs import Request, add_token_query, token_logprobs

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
    },
}
KEY_VALUE_HEADS = {"tiny": 2, "0.5B": 2, "7B": 4}
VOCABULARY = 152_064
COUNTED = 0.75
"""Share of a sequence, at its end, whose log-probabilities are requested."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["0.5B", "7B"], choices=SHAPES)
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of each sequence")
    parser.add_argument("--tokens-per-batch", type=int, default=32_768)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = matrix_rate(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    result = {
        "benchmark": "scorer",
        "device": name,
        "matrix_teraflops": round(rate / 1e12, 3),
        **vars(options),
    }
    result["shapes"] = {shape: measure(shape, options, device, rate) for shape in options.shapes}
    print(json.dumps(result))


def measure(shape: str, options: argparse.Namespace, device: torch.device, rate: float) -> dict[str, float]:
    """Return tokens a second and the share of the matrix rate for one shape."""
    config = Qwen2Config(
        **SHAPES[shape],
        vocab_size=VOCABULARY,
        num_key_value_heads=KEY_VALUE_HEADS[shape],
        max_position_embeddings=max(32_768, options.tokens),
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
    add_token_query(model)
    generator = torch.Generator().manual_seed(0)
    size = (options.completions, options.tokens)
    ids = torch.randint(0, VOCABULARY, size, generator=generator).tolist()
    counted = range(round((1 - COUNTED) * options.tokens), options.tokens)
    requests = [Request(row, counted) for row in ids]

    def score() -> object:
        return token_logprobs(
            model, requests, temperature=0.7, tokens_per_batch=options.tokens_per_batch, device=device
        )

    seconds = timed(score, options.repeats, device)
    num_tokens = options.completions * options.tokens
    embedding = model.get_input_embeddings().weight.numel()
    layers = sum(p.numel() for p in model.model.parameters()) - embedding
    hidden = config.hidden_size
    attention = 4 * config.num_hidden_layers * hidden * options.tokens / 2  # per token, causal
    head = 2 * hidden * VOCABULARY * len(counted) * options.completions
    operations = num_tokens * (2 * layers + attention) + head
    return {
        "seconds": round(seconds, 4),
        "tokens_per_second": round(num_tokens / seconds),
        "share_of_matrix_rate": round(operations / seconds / rate, 3),
    }


def matrix_rate(device: torch.device) -> float:
    """Return the operations a second of one large bfloat16 product."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, 20, device)


def timed(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the median seconds of a call, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
