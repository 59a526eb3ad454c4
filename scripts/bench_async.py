#!/usr/bin/env python3
"""Wall time of a teacher-RL step with generation.max_staleness 0 and 1, as one JSON line.

    .venv/bin/python scripts/bench_async.py --rounds 3

The runs are those of bench_step.py --server: random models, the toy world's problems, a real vLLM server on
one core and the trainer on another. Three kinds take turns, each in a run of its own: `released` and
`modern`, which wait for their own completions, and `ahead`, which is `modern` one step ahead. All have the
same lengths, batch and groups, so `modern` differs from `released` by the reference pass that it lacks.
Measured are the steps between the first, which begins nothing ahead of it, and the last, after which nothing
is to be written.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_step import make_config, make_ours, toy_problems, write_models
from transformers import TrainerCallback

from rlt.config.schema import Config
from rlt.launch.server import running_servers
from rlt.stages.engine import server_pool
from rlt.stages.rl import make_engine

_SAME = ("generation.stop_at_tag=false", "trainer.grad_accum_dtype=model")
KINDS = {
    "released": (),
    "modern": ("recipe=modern", *_SAME),
    "ahead": ("recipe=modern", *_SAME, "generation.max_staleness=1"),
}


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a run")
    parser.add_argument("--completions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256, help="limit of a completion")
    parser.add_argument("--per-device", type=int, default=1, help="completions of one forward pass")
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--student-layers", type=int, help="of the student (default: as --layers)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    # The trainers print their steps; standard output is for the one line.
    with tempfile.TemporaryDirectory() as name, redirect_stdout(sys.stderr):
        found = measure(options, Path(name))
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"benchmark": "async", **vars(options), "load": load, **found}))
    return 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return seconds of a step of each kind, and what a step ahead takes of the others'."""
    write_models(options, folder)
    asked = argparse.Namespace(**{**vars(options), "server": False, "steps": options.steps + 1})
    configs = {kind: make_config(asked, folder, *words) for kind, words in KINDS.items()}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})  # what is started from here on inherits it
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with running_servers(configs["released"]) as servers:
        os.sched_setaffinity(0, {cores[-1]})
        addresses = [server.plan.address for server in servers]
        for number in range(options.rounds):
            # Each round begins with another kind, so that none always comes first.
            for kind in [*KINDS][number % len(KINDS) :] + [*KINDS][: number % len(KINDS)]:
                config = configs[kind]
                config.generation.servers = addresses
                seconds[kind].append(step_seconds(config, options))
                sys.stderr.write(f"{kind}: {seconds[kind][-1]:.2f} s a step\n")
    middle = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        "ratio_to_modern": round(middle["ahead"] / middle["modern"], 3),
        "ratio_to_released": round(middle["ahead"] / middle["released"], 3),  # the aim is 0.65 at most
        "seconds": {kind: [round(value, 2) for value in values] for kind, values in seconds.items()},
    }


def step_seconds(config: Config, options: argparse.Namespace) -> float:
    """Return the seconds of a step between the first and the last of a run."""
    make = partial(make_engine, pool=server_pool(config), config=config)
    clock = Clock()
    trainer = make_ours(config, toy_problems(config, options), make, clock)
    trainer.train()
    trainer.engine.close()
    ends = clock.ends[: options.steps + 1]
    return (ends[-1] - ends[0]) / options.steps


class Clock(TrainerCallback):
    """Keeps when each step has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Look at the clock."""
        self.ends.append(time.perf_counter())


if __name__ == "__main__":
    sys.exit(main())
