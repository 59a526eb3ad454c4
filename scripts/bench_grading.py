#!/usr/bin/env python3
"""Verdicts a second of the evaluation's graders, as one JSON line.

    .venv/bin/python scripts/bench_grading.py

The answers are made up after the references of benchmarks: whole numbers, decimals, fractions, LaTeX that
is written in another way, and a share (`--algebra`) that takes computer algebra. No pair comes twice, so no
verdict comes out of memory. The children start before the clocks do. CPU seconds, which hold on a busy
machine too, are those of this process and of the children.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time

import psutil

from rlt.evaluation.verdicts import GradingPool, Ungraded
from rlt.tasks.child_pool import MOST_CHILDREN
from rlt.tasks.extraction import ORDERS

THOUGHT = "We add what is given, and take half of it. "
KINDS = ("whole", "decimal", "fraction", "latex")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--algebra", type=float, default=0.05, help="share that takes computer algebra")
    parser.add_argument("--sentences", type=int, default=20, help="before each answer")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    seconds: list[float] = []
    cpu: list[float] = []
    wrong = 0
    for repeat in range(options.repeats):
        rng = random.Random(repeat)
        made = [make(rng, i, options) for i in range(options.answers)]
        with GradingPool(ORDERS["lenient"]) as pool:
            pool.grade([ungraded(f"{i}x+x", f"{i + 1}x") for i in range(64 * MOST_CHILDREN)])
            start, spent = time.perf_counter(), cpu_seconds()
            verdicts = pool.grade([task for task, _ in made])
            seconds.append(time.perf_counter() - start)
            cpu.append(cpu_seconds() - spent)
        wrong += sum(v.correct is not right for v, (_, right) in zip(verdicts, made, strict=True))
    result = {
        "benchmark": "grading",
        **vars(options),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(statistics.median(seconds), 2),
        "verdicts_per_second": round(options.answers / statistics.median(seconds)),
        "verdicts_per_cpu_second": round(options.answers / statistics.median(cpu)),
        "unexpected_verdicts": wrong,
    }
    print(json.dumps(result))


def cpu_seconds() -> float:
    """Return what this process and its children have used."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children()))


def make(rng: random.Random, number: int, options: argparse.Namespace) -> tuple[Ungraded, bool]:
    """Return an answer with its reference, and whether it is right; one in two is."""
    right = rng.random() < 0.5
    kind = "algebra" if rng.random() < options.algebra else rng.choice(KINDS)
    n, other = number + 2, number + 2 if right else number + 3
    value, reference = {
        "whole": (f"{n:,}", f"{other}"),
        "decimal": (f"{n}.50", f"{other}.5"),
        "fraction": (rf"\dfrac{{{2 * n}}}{{{2 * n * n + 2}}}", rf"\frac{{{other}}}{{{other * other + 1}}}"),
        "latex": (rf"\left({n}, \frac12\right)", rf"({n},\frac{{1}}{{2}})"),
        "algebra": (rf"\sqrt{{{4 * n * n + 4}}}", rf"2\sqrt{{{other * other + 1}}}"),
    }[kind]
    right = right or kind == "latex"
    return ungraded(THOUGHT * options.sentences + rf"So it is \boxed{{{value}}}.", reference), right


def ungraded(text: str, reference: str) -> Ungraded:
    """Return an answer without a thought before it."""
    return Ungraded(text, reference, "math", text)


if __name__ == "__main__":
    main()
