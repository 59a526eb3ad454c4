"""The child process of `GradingChild`: reads [answer, reference] lines, writes true or false.

Computer algebra of text that a model wrote may run for ever inside one C call, which no signal handler and
no thread can end. Here the kernel ends the process when a pair takes more CPU time than allowed.

Run as `python -m rlt.tasks.grading_process SECONDS`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
from typing import Any

from rlt.tasks.normal_form import decide
from rlt.tasks.plain_text import plain_text

MEMORY = 4 * 2**30
"""Bytes of address space: an answer such as 9^9^9^9 must not fill the machine."""
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


def main() -> None:
    """Answer line by line until the input ends."""
    seconds = float(sys.argv[1])
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A library that prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    is_correct("1", "1")  # imports and compiled patterns are not on any answer's time
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = is_correct(*json.loads(line))
        except Exception:
            # Whatever a hostile text provokes in the parser or in sympy, it is not a right answer.
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(verdict) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
