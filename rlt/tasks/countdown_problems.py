"""Countdown problems: drawn so that they have a solution, and solved again by search.

Numbers are drawn, joined at random into one whole number, and that number is the target. The solution of the
row is what the solver finds, which knows nothing of how the target was made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial, reduce
from itertools import product

from rlt.errors import DataError
from rlt.tasks.countdown import PRECEDENCE, apply

PATIENCE = 20_000
"""Draws in a row without a new problem after which there are taken to be no more."""

Part = tuple[str, int]
"""An expression's text with the precedence of its last operation."""
_NUMBER = 3


QUESTION = (
    "Use the numbers {numbers}, each exactly once, to make an expression that equals {target}. You may use "
    "+, -, *, / and parentheses. Answer with the expression alone, for example (1 + 2) / 3."
)


@dataclass(frozen=True)
class Difficulty:
    """How hard problems are."""

    num_numbers: tuple[int, int]
    """The fewest and the most numbers of a problem."""
    max_number: int
    """Numbers are drawn from 1 to this."""
    targets: tuple[int, int]
    """The lowest and the highest target."""
    operations: tuple[str, ...]
    """What the reference solution may use."""


@dataclass(frozen=True)
class CountdownProblem:
    """Numbers, a target, and an expression that makes one of the others."""

    numbers: tuple[int, ...]
    target: int
    solution: str

    def row(self, question: str = QUESTION) -> dict[str, object]:
        """Return the problem as a line of a problem file; the answer is a reference for the grader.

        `{numbers}` and `{target}` in `question` are replaced by the problem's own.
        """
        numbers = ", ".join(str(number) for number in self.numbers)
        return {
            "question": question.replace("{numbers}", numbers).replace("{target}", str(self.target)),
            "solution": self.solution,
            "answer": self.solution,
            "numbers": list(self.numbers),
            "target": self.target,
        }


def make_problems(difficulty: Difficulty, num: int, seed: int) -> list[CountdownProblem]:
    """Return `num` problems, no two with the same numbers (in any order) and target.

    The first problems of a seed are the same whatever `num` is. DataError where too few are found.
    """
    rng = random.Random(seed)
    made: dict[tuple[tuple[int, ...], int], CountdownProblem] = {}
    misses = 0
    while len(made) < num:
        numbers, target = _draw(rng, difficulty)
        key = (tuple(sorted(numbers)), target)
        if target is None or key in made:
            misses += 1
            if misses == PATIENCE:
                raise DataError(
                    f"only {len(made)} different Countdown problems were found where {num} are asked for: "
                    "ask for fewer, or widen `countdown` (max_number, the targets, the operations)"
                )
            continue
        solution = solve(numbers, target, difficulty.operations)
        assert solution is not None, f"{numbers} make {target} by construction"
        made[key[0], target] = CountdownProblem(numbers, target, solution)
        misses = 0
    return list(made.values())


def _draw(rng: random.Random, difficulty: Difficulty) -> tuple[tuple[int, ...], int | None]:
    """Return random numbers and what they are joined to; None where that is no target."""
    count = rng.randint(*difficulty.num_numbers)
    numbers = tuple(rng.randint(1, difficulty.max_number) for _ in range(count))
    values = list(numbers)
    while len(values) > 1:
        left, right = sorted((values.pop(rng.randrange(len(values))) for _ in range(2)), reverse=True)
        possible = [o for o in difficulty.operations if o != "/" or (right and left % right == 0)]
        if not possible:
            return numbers, None
        value = apply(rng.choice(possible), Fraction(left), Fraction(right))
        assert value is not None
        values.append(int(value))
    low, high = difficulty.targets
    return numbers, values[0] if low <= values[0] <= high else None


def solve(numbers: Sequence[int], target: int, operations: Sequence[str]) -> str | None:
    """Return an expression of all the numbers that equals the target, None where there is none.

    The smaller side of the last operation is enumerated; what the other side has to be then follows.
    """
    operations = tuple(sorted(operations))

    @cache
    def reached(some: tuple[int, ...]) -> dict[Fraction, Part]:
        """Return every value that some numbers make, each with one expression."""
        if len(some) == 1:
            return {Fraction(some[0]): (str(some[0]), _NUMBER)}
        found: dict[Fraction, Part] = {}
        for first, second in _splits(some):
            for value, part in _joined(operations, reached(first), reached(second)):
                found.setdefault(value, part)
        return found

    @cache
    def search(some: tuple[int, ...], wanted: Fraction) -> Part | None:
        if len(some) <= 3:
            return reached(some).get(wanted)
        parts = ((a, part, second) for first, second in _splits(some) for a, part in reached(first).items())
        for a, part, second in parts:
            if zero := [o for o in "*/" if o in operations and a == wanted == 0]:
                return _join(zero[0], part, _chain(zero[0], second))
            for operator, other, is_left in _others(operations, a, wanted):
                if rest := search(second, other):
                    return _join(operator, part, rest) if is_left else _join(operator, rest, part)
        return None

    found = search(tuple(sorted(numbers)), Fraction(target))
    return found and found[0]


def _joined(
    operations: Sequence[str], first: Mapping[Fraction, Part], second: Mapping[Fraction, Part]
) -> Iterator[tuple[Fraction, Part]]:
    """Yield what one operation makes of a value of either side, in either order."""
    for (a, left), (b, right) in product(first.items(), second.items()):
        for operator, (x, p, y, q) in product(operations, ((a, left, b, right), (b, right, a, left))):
            value = apply(operator, x, y)
            if value is not None:
                yield value, _join(operator, p, q)


def _others(operations: Sequence[str], a: Fraction, wanted: Fraction) -> Iterator[tuple[str, Fraction, bool]]:
    """Yield (operator, b, whether a comes first) with the one value b that makes `wanted` with a."""
    if "+" in operations:
        yield "+", wanted - a, True
    if "-" in operations:
        yield "-", a - wanted, True
        yield "-", wanted + a, False
    if "*" in operations and a:
        yield "*", wanted / a, True
    if "/" in operations and a:
        yield "/", wanted * a, False
        if wanted:
            yield "/", a / wanted, True


def _splits(some: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield every way to part numbers in two, the smaller part first."""
    seen = set()
    for mask in range(1, 2 ** len(some) - 1):
        first = tuple(n for i, n in enumerate(some) if mask >> i & 1)
        second = tuple(n for i, n in enumerate(some) if not mask >> i & 1)
        if len(first) <= len(second) and (first, second) not in seen:
            seen.add((first, second))
            yield first, second


def _chain(operator: str, numbers: tuple[int, ...]) -> Part:
    """Return numbers joined by one operation, * or /; never 0, as no number is."""
    return reduce(partial(_join, operator), [(str(number), _NUMBER) for number in numbers])


def _join(operator: str, left: Part, right: Part) -> Part:
    """Return an operation on two expressions, with the parentheses that it needs."""
    binds = PRECEDENCE[operator]
    texts = [left[0] if left[1] >= binds else f"({left[0]})"]
    needs = right[1] < binds or (right[1] == binds and operator in "-/")
    texts.append(f"({right[0]})" if needs else right[0])
    return f"{texts[0]} {operator} {texts[1]}", binds
