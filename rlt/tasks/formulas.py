r"""Formulas between dollars or LaTeX brackets in a text, and pieces of an answer that belong together.

All of it takes time linear in the text. A dollar before an amount of money opens no formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_MARK = re.compile(
    r"\\\\|\\[$]|\$\$|\$|\\[()\[\]]|\\(?P<end>begin|end)\{(?:align|equation|gather|displaymath|math)\*?\}"
)
_CLOSES = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z}])")
_FUNCTION = frozenset(("sin", "cos", "tan", "log", "sqrt", "exp", "mod", "lcm", "gcd", "max", "min"))
_SYMBOL = re.compile(r"\\?[A-Za-z]+(?:_\{?\w\}?)?'*|")
_SEPARATOR = re.compile(
    r"(?P<unit>(?:(?!(?:and|or)(?![a-z]))[a-z]{3,} ?){0,2})[,;]?\s*(?P<and>and|or|&|\\\\)?(?: also)?[,;:]?\s*"
    r"(?P<name>(?:\\?[A-Za-z]\w*(?:\(\w\))?|\(\w, ?\w\))\s*&?=&?)?",
)
_TEXT = re.compile(
    r"(?P<row>\\\\)|\\(?:text|mbox|mathrm|textbf)\s*\{(?P<text>[^{}]*)\}|"
    r"\\(?:q?quad(?![A-Za-z])|[,;:! ()\[\]])|[$~*]"
)
_BULLET = re.compile(r"[ \t.,;]*\n[ \t]*(?:[-\u2022]|\(?[a-z\d][.)])?[ \t]*")
_NO_UNIT = re.compile(
    r"\b(?:then|so|not|thus|hence|but|wait|therefore|gives?|instead|rather|now|gets?|got|equals|equivalently|"
    r"namely|because|since|becomes|yields|the|that|which|from|with)\b"
)
_LONGEST_GAP = 60
"""Characters between two pieces that belong together."""


class Span(NamedTuple):
    """A piece of a text: where it starts and ends with its marks, and what is in it."""

    start: int
    end: int
    content: str


def formulas(text: str) -> list[Span]:
    """Return the formulas of a text in their order; what is not closed is none."""
    found: list[Span] = []
    opened: re.Match[str] | None = None
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in ("\\\\", r"\$"):
            continue
        if opened is None:
            opened = match if mark in _CLOSES or match["end"] == "begin" else None
            continue
        closes = _CLOSES.get(opened[0])
        if mark != closes and not (closes is None and match["end"] == "end"):
            continue
        content = text[opened.end() : match.start()]
        if mark == "$" and not _is_formula(content, text[match.end() : match.end() + 1]):
            opened = match  # the first was money
            continue
        found.append(Span(opened.start(), match.end(), content.strip()))
        opened = None
    return found


def _is_formula(content: str, following: str) -> bool:
    if following.isdigit() or "\n\n" in content:
        return False
    return all(word[0] in _FUNCTION for word in _WORDS.finditer(content))


def is_symbol(formula: str) -> bool:
    """Whether a formula is a single name, which no question asks for."""
    return _SYMBOL.fullmatch(formula) is not None


class Gap(NamedTuple):
    """What is between two pieces of one answer."""

    unit: str
    """Of the piece before it."""
    has_and: bool
    name: str
    """Of the piece after it, with its equals sign."""


def read_gap(gap: str) -> Gap | None:
    """Return what a text between two pieces says; None where the pieces do not belong together."""
    if len(gap) > _LONGEST_GAP:
        return None
    plain = _TEXT.sub(lambda m: " ; " if m["row"] else f" {m['text'] or ''} ", gap)
    bullet = _BULLET.fullmatch(plain)
    if bullet:
        return Gap("", True, "")
    if "\n" in plain.strip():
        return None
    match = _SEPARATOR.fullmatch(" ".join(plain.split()))
    if match is None or _NO_UNIT.search(match["unit"]):
        return None
    unit = match["unit"].strip()
    if unit and not match["and"]:
        return None
    return Gap(unit, bool(match["and"]), match["name"] or "")


def last_together(pieces: Sequence[Span], text: str, may_join: Callable[[Gap], bool]) -> list[int]:
    """Return the numbers of the last pieces that belong together: at least that of the last one.

    `may_join` says of a gap whether it may be the last one; before it any separator will do.
    """
    chosen = [len(pieces) - 1]
    while chosen[0] > 0:
        before, after = pieces[chosen[0] - 1], pieces[chosen[0]]
        gap = read_gap(text[before.end : after.start])
        if gap is None or (len(chosen) == 1 and not may_join(gap)):
            break
        chosen.insert(0, chosen[0] - 1)
    return chosen
