"""Countdown: is an expression made of exactly the given numbers, and does it equal the target?

The task and its reward are those of Jiayi-Pan/TinyZero. Its grader hands what the model wrote to `eval`; this
one reads the text by itself, in time linear in a bounded length, and computes with fractions. It knows no
`**`, `//` and decimal point, which `eval` lets through. The maker of problems is in countdown_problems.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Self

from rlt.errors import DataError
from rlt.records import Problem

MAX_CHARACTERS = 512
"""Longer texts are no expressions; six numbers take a tenth of it."""
WELL_FORMED_REWARD = 0.1
"""TinyZero's reward of an expression that is wrong."""

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}", "-"),
        **dict.fromkeys("\N{MULTIPLICATION SIGN}\N{MIDDLE DOT}\N{DOT OPERATOR}\N{ASTERISK OPERATOR}", "*"),
        **dict.fromkeys("\N{DIVISION SIGN}\N{DIVISION SLASH}", "/"),
    }
)
"""Signs of print that models write."""
_NEGATE, _OPEN = "negate", "("
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_BINDS = {_OPEN: 0, **PRECEDENCE, _NEGATE: 3}


@dataclass(frozen=True)
class Expression:
    """What an arithmetic expression comes to, and the numbers it is made of, in their order."""

    numbers: tuple[int, ...]
    value: Fraction | None
    """None where it divides by zero."""


def parse_expression(text: str) -> Expression | None:
    """Return the expression that a text is, or None.

    It may hold whole numbers, + - * / or their signs of print, signs before a number, and parentheses.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = text.translate(_SIGNS)
    tokens = _TOKEN.findall(text)
    if re.sub(r"\s", "", _TOKEN.sub("", text)):
        return None
    reader = _Reader()
    return reader.end() if all(reader.take(token) for token in tokens) else None


@dataclass
class _Reader:
    """Dijkstra's shunting yard: operators wait on a stack, so that no nesting is too deep."""

    numbers: list[int] = field(default_factory=list)
    values: list[Fraction | None] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    wants_operand: bool = True

    def take(self, token: str) -> bool:
        """Read one token; False where it is not allowed."""
        if self.wants_operand:
            return self._operand(token)
        if token == ")":
            self._apply_down_to(1)
            return bool(self.waiting) and self.waiting.pop() == _OPEN
        if token not in PRECEDENCE:
            return False
        self._apply_down_to(PRECEDENCE[token])
        self.waiting.append(token)
        self.wants_operand = True
        return True

    def end(self) -> Expression | None:
        """Return the whole expression, None where it breaks off."""
        if self.wants_operand:
            return None
        self._apply_down_to(1)
        if self.waiting:
            return None
        return Expression(tuple(self.numbers), self.values[0])

    def _operand(self, token: str) -> bool:
        if token.isdigit():
            self.numbers.append(int(token))
            self.values.append(Fraction(self.numbers[-1]))
            self.wants_operand = False
        elif token == "-":
            self.waiting.append(_NEGATE)
        elif token == _OPEN:
            self.waiting.append(_OPEN)
        else:
            return token == "+"
        return True

    def _apply_down_to(self, precedence: int) -> None:
        while self.waiting and _BINDS[self.waiting[-1]] >= precedence:
            operator, right = self.waiting.pop(), self.values.pop()
            if operator == _NEGATE:
                self.values.append(None if right is None else -right)
            else:
                self.values.append(apply(operator, self.values.pop(), right))


def apply(operator: str, left: Fraction | None, right: Fraction | None) -> Fraction | None:
    """Return `left operator right`; None where it divides by zero, or a side did."""
    if left is None or right is None or (operator == "/" and right == 0):
        return None
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left / right


def is_countdown(problem: Problem) -> bool:
    """Whether a problem carries the `numbers` and the `target` that its reference is made of and makes."""
    numbers, target = problem.extra.get("numbers"), problem.extra.get("target")
    wanted = parse_expression(problem.reference)
    if wanted is None or not isinstance(numbers, list):
        return False
    return sorted(map(str, wanted.numbers)) == sorted(map(str, numbers)) and wanted.value == target


class CountdownGrader:
    """Grades one answer at a time, with the interface of `MathGrader`.

    The reference is any right expression: its numbers are those to use, its value is the target. An answer
    may use all four operations, whichever the reference uses.
    """

    undecided: int = 0
    """No answer is left undecided."""

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether `answer` uses the numbers of `reference`, each exactly once, and has its value."""
        return tinyzero_reward(answer, reference) == 1.0

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return for each (answer, reference) whether it is right."""
        return [self(*pair) for pair in pairs]

    def is_undecided(self, answer: str, reference: str) -> bool:  # noqa: ARG002 - as of every grader
        """Whether a pair could not be graded: none."""
        return False

    def is_answer(self, text: str) -> bool:
        """Whether a text is an expression."""
        return parse_expression(text) is not None

    def close(self) -> None:
        """Do nothing: there is no process to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tinyzero_reward(answer: str, reference: str) -> float:
    """Return 1 for a right answer, 0.1 for an expression that is wrong, 0 for anything else."""
    wanted = parse_expression(reference)
    if wanted is None or wanted.value is None:
        raise DataError(
            f"the reference {reference[:80]!r} must be an expression such as (1 + 2) / 3, because the "
            "countdown grader reads numbers and target from it; make problems with run_cfg=make_countdown, "
            "or take the grader math"
        )
    given = parse_expression(answer)
    if given is None:
        return 0.0
    is_right = given.value == wanted.value and sorted(given.numbers) == sorted(wanted.numbers)
    return 1.0 if is_right else WELL_FORMED_REWARD
