#!/usr/bin/env python3
"""Throughput of collect_traces against calling its vLLM server directly, as one JSON line.

    .venv/bin/python scripts/bench_collect.py

Both send the same prompts with the same seeds and as many requests at a time. The direct caller asks for text
alone and keeps it in memory; ours cuts the explanations out and writes each to the journal. They take turns,
each with an empty prefix cache, and what they get is compared. Random weights hardly ever end a completion.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import requests
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.config.compose import compose
from rlt.config.schema import Config
from rlt.generation.seeds import spread_seed
from rlt.generation.types import Sampling
from rlt.launch.server import running_servers
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import make_world, vocabulary
from rlt.reporting.progress import SampleProgress
from rlt.stages.collect_traces import prompted_rows, read_layouts
from rlt.stages.engine import make_sampling, server_pool
from rlt.stages.sampling import from_servers, save
from rlt.traces.collect import Sample, plan_samples, read_sample
from rlt.traces.journal import Journal


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4, help="of each problem")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each sample")
    parser.add_argument("--in-flight", type=int, default=64, help="requests at a time")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--repeats", type=int, default=3, help="measured pairs, after one that warms up")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(options, Path(folder))
        layout, messages = read_layouts(config)
        samples = plan_samples(prompted_rows(config, layout, messages, None).values, options.samples)
        sampling = make_sampling(config, layout.stop_token_ids)
        seconds: dict[str, list[float]] = {"rlt": [], "direct": []}
        with running_servers(config) as servers:
            config.generation.servers = [servers[0].address]
            pool = server_pool(config, options.in_flight)
            for turn in range(options.repeats + 1):
                pool.reset_prefix_cache()
                start = time.perf_counter()
                todo = {i: [sample] for i, sample in enumerate(samples)}
                journal = Journal(Path(folder) / str(turn), [[s.key] for s in samples])
                clock = SampleProgress([], len(samples), options.in_flight, every=3600)
                drawn = from_servers(pool, sampling, config.seed, todo)
                save(drawn, todo, journal, partial(read_sample, layout=layout), clock)
                seconds["rlt"].append(time.perf_counter() - start)
                pool.reset_prefix_cache()
                start = time.perf_counter()
                texts = call_directly(servers[0].address, samples, sampling, config.seed, options.in_flight)
                seconds["direct"].append(time.perf_counter() - start)
                check_equal(samples, journal, texts, layout.tokenizer)
    measured = {name: values[1:] for name, values in seconds.items()}
    ratios = [b / a for a, b in zip(measured["rlt"], measured["direct"], strict=True)]
    num_tokens = options.tokens * len(samples)
    print(
        json.dumps(
            {
                "benchmark": "collect",
                **vars(options),
                "throughput_to_direct": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                **{
                    f"{name}_tokens_per_second": round(num_tokens / statistics.median(values))
                    for name, values in measured.items()
                },
            }
        )
    )


def make_config(options: argparse.Namespace, folder: Path) -> Config:
    """Return the configuration of a collection from a random model, which is written into `folder`."""
    tokenizer = build_tokenizer(vocabulary())
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=2 * options.hidden,
        num_hidden_layers=4,
        num_attention_heads=options.hidden // 32,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen2ForCausalLM(shape).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    rows = make_world(0, options.problems, 1).train
    lines = [json.dumps({"question": row.question, "solution": row.solution}) for row in rows]
    (folder / "problems.jsonl").write_text("\n".join(lines))
    return compose(
        [
            "run_cfg=collect_traces",
            f"model_name_or_path={folder / 'teacher'}",
            f"dataset_id_or_path={folder / 'problems.jsonl'}",
            f"output_dir={folder / 'run'}",
            "generation.dtype=float32",
            "max_prompt_length=512",
            f"max_completion_length={options.tokens}",
        ]
    )


def call_directly(
    address: str, samples: list[Sample], sampling: Sampling, seed: int, in_flight: int
) -> list[str]:
    """Return the text of every sample, asked for as shortly as the server's API allows."""
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=in_flight))

    def ask(sample: Sample) -> str:
        body: dict[str, Any] = {
            "prompt": sample.row.prompt_ids,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": spread_seed(sample.seed(seed)),
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,
            "skip_special_tokens": False,
        }
        answer = session.post(f"{address}/v1/completions", json=body, timeout=600)
        answer.raise_for_status()
        return answer.json()["choices"][0]["text"]

    with ThreadPoolExecutor(in_flight) as threads:
        return list(threads.map(ask, samples))


def check_equal(samples: list[Sample], journal: Journal, texts: list[str], tokenizer: Any) -> None:
    """Raise unless both got the same samples: each explanation is the start of the direct caller's text."""
    for sample, text in zip(samples, texts, strict=True):
        row = journal.rows[sample.key]
        ours = row["explanation"].rstrip("\ufffd")  # half a character at the end is written in another way
        assert text.startswith(ours), (sample.key, ours, text, tokenizer.name_or_path)


if __name__ == "__main__":
    main()
