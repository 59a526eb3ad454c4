r"""SkyThought's own verdict of an answer, written from the rules of 4bb8f3e (math_parsing_util, handlers).

It differs from the graders of this folder in both directions. It is looser with numbers (a hundredth or a
hundred times the reference passes, and whatever is within 1e-4 of it), with brackets ((0, 1] is [0, 1)), with
units and with the order of whole numbers, so that 1,000 is not 1000; it takes an article "a" for option A.
What its comparison of texts leaves open goes to sympy there and to math-verify here; GSM8K is compared like
MATH. All of it takes time linear in the text, but for sorting.
"""

from __future__ import annotations

import math
import re

from rlt.tasks.extraction import ORDERS, extract
from rlt.tasks.plain_text import plain_text

KINDS = ("math", "choice")
"""Kinds of answers that SkyThought grades."""
_CLOSE = 1e-4
_FACTORS = (0.01, 1.0, 100.0)
_MOST_DIGITS = 300
_DEEPEST = 2
"""Tuples in a matrix are compared by their entries, and no deeper."""

_LETTER = re.compile(r"\b[A-D]\b")
_UNIT = re.compile(r"(?<=.)\\(?:text|mbox)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?$", re.DOTALL)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_DROPPED = re.compile(
    r"\^\s*\{?\s*\\circ\s*\}?|\\?%|\\mathbf(?![A-Za-z])|(?<![\\A-Za-z])[xyz](?:=|\\in(?![a-z]))|\s"
)
_MATRIX = re.compile(r"\\begin\{([a-z]*)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_ZEROS = re.compile(r"(?<=\d)\.0*(?!\d)")
_SLASH = re.compile(r"(-?\d+)/(-?\d+)")
_NAME = re.compile(r"[^=]{1,2}=([^=]*)")
_INTEGERS = re.compile(r"-?\d{1,18}(?:,-?\d{1,18})+")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
_BRACKETS = str.maketrans("", "", "()[]{}")


def read(turn: str, kind: str) -> str | None:
    """Return what a student's whole turn answers: the thought counts as well."""
    if kind == "choice":
        letters = _LETTER.findall(turn.upper())
        return letters[-1] if letters else None
    return extract(turn, ORDERS["skythought"][kind])[0]


def says_same(answer: str, reference: str) -> bool | None:
    """Whether an answer passes as the reference; None where computer algebra has to say."""
    return _compare(_bare(answer), _bare(reference), _DEEPEST)


def _compare(left: str, right: str, depth: int) -> bool | None:
    if left == right:
        return True
    number, wanted = _number(left), _number(right)
    if number is not None and wanted is not None:
        return any(math.isclose(wanted * factor, number, rel_tol=_CLOSE) for factor in _FACTORS)
    if left.translate(_BRACKETS) == right.translate(_BRACKETS):
        return True
    entries, others = _entries(left), _entries(right)
    if depth and entries and len(entries) == len(others):
        pairs = zip(entries, others, strict=True)
        if all(_compare(entry, other, depth - 1) for entry, other in pairs):
            return True
    return None


def _bare(text: str) -> str:
    """Return a text in lower case without what the comparison does not look at."""
    plain = _UNIT.sub("", plain_text(text)).strip()
    plain = _DROPPED.sub("", _TEXT.sub(r"\1", plain))
    plain = _ZEROS.sub("", plain)
    named = _NAME.fullmatch(plain)
    plain = named[1] if named else plain
    slash = _SLASH.fullmatch(plain)
    if slash:
        plain = rf"\frac{{{slash[1]}}}{{{slash[2]}}}"
    if _INTEGERS.fullmatch(plain):
        plain = ",".join(map(str, sorted(map(int, plain.split(",")))))
    return plain.lower()


def _number(text: str) -> float | None:
    digits = text.replace(",", "")
    return float(digits) if len(digits) <= _MOST_DIGITS and _NUMBER.fullmatch(digits) else None


def _entries(text: str) -> list[str]:
    """Return the entries of a tuple or of a matrix row by row; empty for anything else."""
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return [entry for row in matrix[2].split(r"\\") if row for entry in row.split("&")]
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]":
        return text[1:-1].split(",")
    return []
