#!/usr/bin/env python3
"""How often the 95 % intervals of an evaluation hold the truth, by simulation, as Markdown tables.

    .venv/bin/python scripts/interval_coverage.py [--repeats 2000] [--paired]

Problems are drawn from a distribution of difficulty (equal: each is solved as often; the others are beta
distributions with that sum of parameters, of which 1 has a bow of hard and easy ones), their samples from the
binomial. With --paired a second model solves each problem more often, by 0, 3 or 10 points on average: the
cells are the coverage, and in brackets how often the page says "by more than noise".
"""

from __future__ import annotations

import argparse

import numpy as np

from rlt.evaluation.compare import compare
from rlt.evaluation.intervals import share_interval

DESIGNS = ((30, 1), (30, 64), (198, 8), (500, 1), (500, 4))
"""Problems and samples of each: AIME, GPQA-Diamond and MATH-500 as they are reported."""
SHAPES = {"equal": None, "beta 3": 3.0, "beta 1": 1.0, "beta 0.4": 0.4}
ACCURACIES = (0.01, 0.033, 0.1, 0.2, 0.5, 0.8, 0.9, 0.967, 0.99)
DIFFERENCES = (0.0, 0.03, 0.1)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paired", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    heads = ["problems x samples", "difficulty", *(["difference"] if options.paired else [])]
    print("| " + " | ".join([*heads, *(f"{100 * p:g} %" for p in ACCURACIES)]) + " |")
    print("|---" * (len(heads) + len(ACCURACIES)) + "|")
    for num, samples in DESIGNS:
        for name, shape in SHAPES.items():
            for gain in DIFFERENCES if options.paired else (0.0,):
                cells = [
                    cell(rng, num, samples, shape, p, gain, options) if p + gain < 1 else "-"
                    for p in ACCURACIES
                ]
                shown = [f"{num} x {samples}", name, *([f"{100 * gain:g}"] if options.paired else [])]
                print("| " + " | ".join([*shown, *cells]) + " |", flush=True)


def cell(rng, num, samples, shape, accuracy, gain, options) -> str:
    """Return the coverage in percent."""
    if options.paired:
        held, claimed = paired_coverage(rng, num, samples, shape, accuracy, gain, options.repeats)
        return f"{100 * held:.1f} ({100 * claimed:.0f})"
    return f"{100 * coverage(rng, num, samples, shape, accuracy, options.repeats):.1f}"


def difficulties(rng, shape, accuracy, gain, num):
    """Return the chance of each problem, for a model and for one that solves `gain` more.

    Problems are independent of each other, as the intervals take them to be. Of one problem the two chances
    are shares of one Dirichlet draw, so that both are beta distributed; for one problem in five the second
    model's is drawn anew, since models differ in what they find hard.
    """
    if shape is None:
        return np.full(num, accuracy), np.full(num, accuracy + gain)
    parts = [rng.gamma(shape * part, size=num) if part else np.zeros(num) for part in (accuracy, gain)]
    rest = rng.gamma(shape * (1 - accuracy - gain), size=num)
    total = np.maximum(sum(parts) + rest, np.finfo(float).tiny)
    before, after = parts[0] / total, (parts[0] + parts[1]) / total
    anew = rng.beta(shape * (accuracy + gain), shape * (1 - accuracy - gain), num)
    return before, np.where(rng.random(num) < 0.2, anew, after)


def coverage(rng, num, samples, shape, accuracy, repeats) -> float:
    """Return how often the interval of an accuracy holds it."""
    held = 0
    for _ in range(repeats):
        chances, _ = difficulties(rng, shape, accuracy, 0.0, num)
        found = share_interval((rng.binomial(samples, chances) / samples).tolist(), samples)
        held += found.low <= accuracy <= found.high
    return held / repeats


def paired_coverage(rng, num, samples, shape, accuracy, gain, repeats) -> tuple[float, float]:
    """Return how often the interval of a difference holds it, and how often it is called more than noise."""
    held = claimed = 0
    for _ in range(repeats):
        chances = difficulties(rng, shape, accuracy, gain, num)
        drawn = [(rng.binomial(samples, row) / samples).tolist() for row in chances]
        first, second = ({"t": {str(i): share for i, share in enumerate(shares)}} for shares in drawn)
        (pair,) = compare(first, second)
        held += pair.difference.low <= gain <= pair.difference.high
        claimed += "by more than noise" in pair.sentence()
    return held / repeats, claimed / repeats


if __name__ == "__main__":
    main()
