"""Countdown problems: solvable by an independent search, distinct, reproducible, as difficult as asked."""

import itertools
import random
from fractions import Fraction

import pytest

from rlt.errors import DataError
from rlt.tasks.countdown import parse_expression
from rlt.tasks.countdown_problems import Difficulty, make_problems, solve

USUAL = Difficulty((3, 4), 99, (1, 100), ("+", "-", "*", "/"))


def reachable(numbers: tuple[Fraction, ...], operations: str) -> set[Fraction]:
    """Return all that numbers make, by replacing two of them with what they make."""
    if len(numbers) == 1:
        return {numbers[0]}
    found = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        made = {"+": a + b, "-": a - b, "*": a * b}
        if b:
            made["/"] = a / b
        for value in {made[o] for o in operations if o in made}:
            found |= reachable((*rest, value), operations)
    return found


@pytest.mark.parametrize("operations", ["+-*/", "+-", "*/", "-"])
def test_the_solver_finds_just_what_can_be_made(operations):
    rng = random.Random(0)
    for size in (2, 3, 4, 4):
        numbers = tuple(rng.randint(1, 9) for _ in range(size))
        made = reachable(tuple(map(Fraction, numbers)), operations)
        for target in range(40):
            solution = solve(numbers, target, operations)
            assert (solution is not None) == (Fraction(target) in made), (numbers, target)
            if solution:
                expression = parse_expression(solution)
                assert expression is not None
                assert expression.value == target
                assert sorted(expression.numbers) == sorted(numbers)
                assert set(solution) <= set(f"0123456789 (){operations}")


def test_every_problem_is_solvable_and_of_its_difficulty():
    problems = make_problems(USUAL, 60, seed=0)
    assert {len(p.numbers) for p in problems} == {3, 4}
    assert len({(tuple(sorted(p.numbers)), p.target) for p in problems}) == 60
    for problem in problems:
        assert max(problem.numbers) <= 99
        assert 1 <= problem.target <= 100
        if len(problem.numbers) == 3:
            assert problem.target in reachable(tuple(map(Fraction, problem.numbers)), "+-*/")
        expression = parse_expression(problem.solution)
        assert expression is not None
        assert (sorted(expression.numbers), expression.value) == (sorted(problem.numbers), problem.target)


def test_six_numbers_are_solved():
    (problem,) = make_problems(Difficulty((6, 6), 50, (500, 999), ("+", "-", "*", "/")), 1, seed=0)
    expression = parse_expression(problem.solution)
    assert expression is not None
    assert expression.value == problem.target


def test_a_seed_fixes_the_problems_and_more_only_adds():
    assert make_problems(USUAL, 20, seed=1) == make_problems(USUAL, 40, seed=1)[:20]
    assert make_problems(USUAL, 20, seed=1) != make_problems(USUAL, 20, seed=2)


def test_too_few_problems():
    # 1 + 1, 1 + 2 and 2 + 2 are all there are.
    with pytest.raises(DataError, match="only 3 different Countdown problems were found where 4"):
        make_problems(Difficulty((2, 2), 2, (0, 100), ("+",)), 4, seed=0)
