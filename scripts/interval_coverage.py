#!/usr/bin/env python3
"""How often the 95 % intervals of an evaluation hold the truth, by simulation, as Markdown tables.

    .venv/bin/python scripts/interval_coverage.py [--repeats 2000]

Problems are drawn from a distribution of difficulty (equal: each is solved as often; the others are beta
distributions with that sum of parameters, of which 1 has a bow of hard and easy ones), their samples from the
binomial. The second table has a second model that solves each problem more often, by 0, 3 or 10 points on
average: the cells are the coverage, and in brackets how often the page says "by more than noise". All repeats
of a cell are computed at once.
"""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np

from rlt.evaluation.intervals import paired_bounds, share_bounds
from rlt.evaluation.paired import is_more_than_noise

DESIGNS = ((30, 1), (30, 64), (198, 8), (500, 1), (500, 4))
"""Problems and samples of each: AIME, GPQA-Diamond and MATH-500 as they are reported."""
SHAPES = {"equal": None, "beta 3": 3.0, "beta 1": 1.0, "beta 0.4": 0.4}
ACCURACIES = (0.01, 0.033, 0.1, 0.2, 0.5, 0.8, 0.9, 0.96, 0.99)
DIFFERENCES = (0.0, 0.03, 0.1)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print("## Coverage of accuracies, in percent\n")
    print_head(["problems x samples", "difficulty"])
    for (num, samples), (name, shape) in of_each(DESIGNS, SHAPES.items()):
        cells = [f"{100 * coverage(rng, num, samples, shape, p, options.repeats):.1f}" for p in ACCURACIES]
        print_row([f"{num} x {samples}", name, *cells])
    print("\n## Coverage of differences, in percent\n")
    print_head(["problems x samples", "difficulty", "difference"])
    for (num, samples), (name, shape), gain in of_each(DESIGNS, SHAPES.items(), DIFFERENCES):
        cells = []
        for p in ACCURACIES:
            if p + gain >= 1:
                cells.append("-")
                continue
            held, claimed = paired_coverage(rng, num, samples, shape, p, gain, options.repeats)
            cells.append(f"{100 * held:.1f} ({100 * claimed:.0f})")
        print_row([f"{num} x {samples}", name, f"{100 * gain:g}", *cells])


def of_each(*lists):
    """Yield every choice of one from each list, the last one fastest."""
    if not lists:
        yield ()
        return
    for first in lists[0]:
        for rest in of_each(*[list(others) for others in lists[1:]]):
            yield first, *rest


def print_head(names) -> None:
    """Print the head of a table whose last columns are accuracies."""
    print_row([*names, *(f"{100 * p:g} %" for p in ACCURACIES)])
    print("|---" * (len(names) + len(ACCURACIES)) + "|")


def print_row(cells) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def difficulties(rng, shape, accuracy, gain, size):
    """Return the chance of each problem, for a model and for one that solves `gain` more; `size` is (R, N).

    Problems are independent of each other, as the intervals take them to be. Of one problem the two chances
    are shares of one Dirichlet draw, so that both are beta distributed; for one problem in five the second
    model's is drawn again, since models differ in what they find hard.
    """
    if shape is None:
        return np.full(size, accuracy), np.full(size, accuracy + gain)
    parts = [rng.gamma(shape * part, size=size) if part else np.zeros(size) for part in (accuracy, gain)]
    rest = rng.gamma(shape * (1 - accuracy - gain), size=size)
    total = np.maximum(parts[0] + parts[1] + rest, np.finfo(float).tiny)
    before, after = parts[0] / total, (parts[0] + parts[1]) / total
    anew = rng.beta(shape * (accuracy + gain), shape * (1 - accuracy - gain), size)
    return before, np.where(rng.random(size) < 0.2, anew, after)


def coverage(rng, num, samples, shape, accuracy, repeats) -> float:
    """Return how often the interval of an accuracy holds it."""
    chances, _ = difficulties(rng, shape, accuracy, 0.0, (repeats, num))
    low, high = share_bounds(rng.binomial(samples, chances) / samples, samples)
    return float(np.mean((low <= accuracy) & (accuracy <= high)))


def paired_coverage(rng, num, samples, shape, accuracy, gain, repeats) -> tuple[float, float]:
    """Return how often the interval of a difference holds it, and how often it is called more than noise."""
    before, after = (
        rng.binomial(samples, chances) for chances in difficulties(rng, shape, accuracy, gain, (repeats, num))
    )
    changes = (after - before) / samples
    low, high = paired_bounds(changes)
    claim = cache(is_more_than_noise)
    claimed = [
        claim(bool(up > 0), bool(down < 0), int(better), int(worse))
        for up, down, better, worse in zip(
            low, high, (changes > 0).sum(axis=1), (changes < 0).sum(axis=1), strict=True
        )
    ]
    # A difference of 0 or 0.03 is not exact in floating point, and bounds may touch it.
    held = (low <= gain + 1e-12) & (gain - 1e-12 <= high)
    return float(np.mean(held)), float(np.mean(claimed))


if __name__ == "__main__":
    main()
