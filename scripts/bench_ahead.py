#!/usr/bin/env python3
"""What RL learns one step ahead (generation.max_staleness=1), over seeds of the quickstart, as one JSON line.

    .venv/bin/python scripts/bench_ahead.py --seeds 0 1 2 3 4

Each seed has a toy world, a base model and a warm-up of its own, as in the quickstart. From there three runs
of teacher_rl begin: `released`, `modern`, and `ahead`, which is `modern` one step ahead. The gain of a run is
the change of a measure on held-out problems, from before the first step to after the last. Intervals are over
seeds. A run that has finished is not repeated. bench_async.py measures the time of such a step.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlt.evaluation.intervals import mean_interval, paired_interval
from rlt.quickstart.main import RL, SFT, Options, make_student
from rlt.quickstart.report import compare, evaluations
from rlt.quickstart.stages import run_stage
from rlt.rundir.run_record import NAME, read_run
from rlt.surroundings.leaving import run_command

KINDS = {
    "released": (),
    "modern": ("recipe=modern",),
    "ahead": ("recipe=modern", "generation.max_staleness=1"),
}
MEASURES = ("reward", "r_SS")
Gains = dict[str, dict[str, float]]


def main(words: Sequence[str]) -> int:
    """Run what has not finished, and print the result."""
    parser = argparse.ArgumentParser(
        description="What RL learns one step ahead, over seeds of the quickstart."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", choices=[*KINDS], nargs="+", default=[*KINDS])
    parser.add_argument("--output", type=Path, default=Path("results/ahead"), help="folder of the runs")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.WARNING)
    found: dict[str, Gains] = {measure: {kind: {} for kind in options.kinds} for measure in MEASURES}
    output = os.dup(1)
    os.dup2(2, 1)  # standard output is for the one line, and the runs inherit it
    for seed in options.seeds:
        for kind, run in run_seed(options.output, seed, options.kinds).items():
            changes = compare(evaluations(run)).changes
            for measure in MEASURES:
                found[measure][kind][str(seed)] = changes[measure].difference.mean
    os.dup2(output, 1)
    result = {measure: over_seeds(gains) for measure, gains in found.items()}
    print(json.dumps({"benchmark": "ahead", "seeds": options.seeds, **result}))
    return 0


def run_seed(output: Path, seed: int, kinds: Sequence[str]) -> dict[str, Path]:
    """Return the run directories of a seed by kind, all finished."""
    directory = output / f"seed_{seed}"
    common = [f"results_dir={directory}", f"seed={seed}"]
    make_student(directory, Options(output, seed))
    run_once(["./launch.sh", "1", SFT, *common], directory / "pre_rl_model")
    runs = {kind: directory / kind for kind in kinds}
    for kind, run in runs.items():
        words = [RL, *common, f"output_dir={run}", *KINDS[kind]]
        run_once(["./launch_with_server.sh", "1", "1", *words], run)
    return runs


def run_once(command: list[str], run: Path) -> None:
    """Run a launcher's command line to its end, unless its run directory says that it was."""
    if not ((run / NAME).is_file() and read_run(run)["status"] == "finished"):
        run_stage(command, run / "logs/train.log")


def over_seeds(gains: Gains) -> dict[str, Any]:
    """Return each kind's gain, and what the others gain above `released`, with 95 % intervals."""
    several = len(next(iter(gains.values()))) > 1
    found: dict[str, Any] = {
        kind: {"gain": str(mean_interval(list(of.values()))) if several else None, "by_seed": rounded(of)}
        for kind, of in gains.items()
    }
    others = [kind for kind in gains if several and kind != "released" and "released" in gains]
    for kind in others:
        found[kind]["above_released"] = str(paired_interval(gains["released"], gains[kind]))
    return found


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Return values as they are printed."""
    return {key: round(value, 3) for key, value in values.items()}


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
