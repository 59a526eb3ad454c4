"""Sums of two numbers in an explanation, and whether they are right."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from statistics import fmean

NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIGNS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "x": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
}
_BEFORE = r"(?<![-+*/x=.\d$])(?<![-+*/x=] )"  # the end of a longer sum
_AFTER = r"(?![\d%.]*\d| ?[-+*/x] ?\$?\d)"  # more of the number, or a longer sum
_SUM = re.compile(
    rf"{_BEFORE}\$?(?P<a>{NUMBER.pattern}) ?(?P<sign>[-+*/x]) ?\$?(?P<b>{NUMBER.pattern})"
    rf" ?= ?\$?(?P<c>{NUMBER.pattern}){_AFTER}"
)


def share_of_right_sums(explanation: str) -> float | None:
    """Return the share of sums of two numbers (`12 * 10 = 120`) that are right within 1 %; None: no sum."""
    found = _SUM.finditer(explanation.replace(",", ""))
    right = [
        math.isclose(_SIGNS[one["sign"]](float(one["a"]), float(one["b"])), float(one["c"]), rel_tol=0.01)
        for one in found
    ]
    return fmean(right) if right else None
