"""The child process of `MathGrader`: whether an answer says the same as a reference, by computer algebra.

Run as `python -m rlt.tasks.grading_process SECONDS`; its lines are [answer, reference] (grading_loop.py).
"""

from __future__ import annotations

import re
import sys
from typing import Any

from rlt.tasks.grading_loop import answer_lines
from rlt.tasks.normal_form import decide
from rlt.tasks.plain_text import plain_text

_DELIMITERS = ("$", r"\(", r"\[", r"\boxed")
_NO_LIMIT = 0  # math-verify's own could not end a C call
_FINAL = "####"
_COMMAND = re.compile(r"\\[A-Za-z]+(?:\s*\{[a-z]+\})?")
_WORDS = re.compile(r"[^\W\d_]{3,}|\s[^\W\d_]{2,}")
_DIGITS = 25
_DIFFERENT = 1e-9
"""Relative difference of values that no rounding explains."""


def is_correct(answer: str, reference: str) -> bool:
    """Whether an answer says the same as a reference: part by part, with math-verify for what is open."""
    return bool(decide(answer, reference, by_math_verify))


def by_math_verify(answer: str, reference: str) -> bool:
    """Whether an answer says the same as a reference, by math-verify."""
    from math_verify import parse, verify

    gold, given = (parse(as_math(text), parsing_timeout=_NO_LIMIT) for text in (reference, answer))
    if gold and given and have_other_values(gold[0], given[0]):
        return False
    return verify(gold, given, timeout_seconds=_NO_LIMIT)


def have_other_values(gold: Any, given: Any) -> bool:
    """Whether two exact expressions in the same symbols surely differ, by their values at one point.

    Most wrong answers do, and math-verify would try to simplify the difference to zero at length.
    """
    import sympy

    slow = (sympy.Float, sympy.Integral, sympy.Sum, sympy.Product, sympy.Derivative, sympy.Limit)
    for side in (gold, given):
        if not isinstance(side, sympy.Expr) or side.has(*slow):
            return False
    symbols = sorted(gold.free_symbols, key=str)
    if gold.free_symbols != given.free_symbols or "i" in map(str, symbols):  # which may be imaginary
        return False
    point = {symbol: sympy.Rational(37 + 6 * i, 29) for i, symbol in enumerate(symbols)}
    values = [side.evalf(_DIGITS, subs=point) for side in (gold, given)]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    first, second = map(complex, values)
    return abs(first - second) > _DIFFERENT * max(1.0, abs(first), abs(second))


def as_math(text: str) -> str:
    """Return a text in which math-verify finds all of the answer.

    Outside of math delimiters it reads numbers only. A formula without words becomes one between dollars.
    What follows a `####` is the answer, as GSM8K writes it.
    """
    text = text.rpartition(_FINAL)[2].strip()
    if "\n" in text or any(d in text for d in _DELIMITERS):
        return text
    plain = plain_text(text)
    return text if _WORDS.search(_COMMAND.sub("", plain)) else f"${plain}$"


if __name__ == "__main__":
    answer_lines(is_correct, float(sys.argv[1]), ("1", "1"))
