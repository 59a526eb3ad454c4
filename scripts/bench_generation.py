#!/usr/bin/env python3
"""Tokens a second of generation with transformers in this process, beside its own sampling, as one JSON line.

    .venv/bin/python scripts/bench_generation.py

Random weights hardly ever end a completion. Prompts have different lengths. CPU seconds count all threads, so
they hold on a machine with other work, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Sampling


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16, help="samples of a batch")
    parser.add_argument("--prompt", type=int, default=200, help="tokens of the longest prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each completion")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=4 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).eval()
    lengths = [options.prompt * (i + 1) // options.rows for i in range(options.rows)]
    prompts = [[5 + i % 50 for i in range(max(1, length))] for length in lengths]
    sampling = Sampling(options.temperature, options.tokens, (), top_p=options.top_p)
    ours = TransformersGenerator(lambda: nullcontext(model), 0, options.rows)
    plain = GenerationConfig(
        max_new_tokens=options.tokens,
        do_sample=options.temperature > 0,
        temperature=options.temperature or None,
        top_p=options.top_p,
        top_k=0,
        pad_token_id=0,
    )
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])

    def theirs() -> None:
        with torch.no_grad():
            model.generate(ids, attention_mask=mask, generation_config=plain)

    timed = {
        "ours": lambda: ours.generate(prompts, 1, sampling, range(options.rows)),
        "transformers": theirs,
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for repeat in range(options.repeats + 1):
        for name, call in timed.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if repeat:  # the first one warms up
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    num = options.rows * options.tokens
    result = {"benchmark": "generation", **vars(options), "threads": torch.get_num_threads()}
    for name, pairs in seconds.items():
        wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        result |= {f"{name}_tokens_per_second": round(num / wall), f"{name}_per_cpu_second": round(num / cpu)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
