r"""The boxes of a text: `\boxed{…}` and `\fbox{…}`. Several that belong together are one answer."""

from __future__ import annotations

import re
from itertools import pairwise

from rlt.tasks.formulas import Span, last_together, read_gap
from rlt.tasks.normal_form import normal_form

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]")
_NAMES = (r"\boxed", r"\fbox")
_NAME = re.compile(r"(?:\\?[A-Za-z]\w*(?:\(\w\))?|\(\w, ?\w\))\s*&?=&?\s*$")
_LAST_UNIT = re.compile(r"[\s$]*([a-z]{3,})[\s.,;!$]*(?:\n|$)")
_LONGEST_NAME, _LONGEST_UNIT, _MOST_PIECES = 40, 40, 50


def boxes(text: str) -> list[Span]:
    """Return the boxes that are closed and hold no other one, in their order; braces must balance."""
    starts = [place for name in _NAMES if (place := text.find(name)) >= 0]
    if not starts:
        return []
    opened: list[tuple[int, int, int] | None] = []  # start, start of the content, boxes before; None: a brace
    found: list[Span] = []
    for match in _BRACES.finditer(text, min(starts)):  # no brace before a box matters
        token = match[0]
        if token.endswith("{") and token != r"\{":
            opened.append((match.start(), match.end(), len(found)) if len(token) > 1 else None)
        elif token == "}" and opened and (box := opened.pop()) is not None:
            start, inside, before = box
            if len(found) == before:
                found.append(Span(start, match.end(), text[inside : match.start()].strip()))
    return found


def last_boxed(text: str) -> str | None:
    """Return what is in the last box."""
    found = boxes(text)
    return (found[-1].content or None) if found else None


def last_boxes(text: str) -> str | None:
    r"""Return the last box, with those that belong to it: `\boxed{1}` and `\boxed{2}` is `1, 2`.

    The pieces keep the names and the units that are beside the boxes. A repeated answer stays one.
    """
    found = boxes(text)[-_MOST_PIECES:]
    if not found or not found[-1].content:
        return None
    chosen = [found[i] for i in last_together(found, text, lambda _: True)]
    if len(chosen) == 1 or len({normal_form(box.content) for box in chosen}) == 1:
        return chosen[-1].content
    names, units = _beside(chosen, text)
    if len(set(names)) < len(names):
        names = [""] * len(names)
    pieces = zip(names, chosen, units, strict=True)
    return ", ".join(f"{name} {box.content} {unit}".strip() for name, box, unit in pieces)


def _beside(chosen: list[Span], text: str) -> tuple[list[str], list[str]]:
    """Return the name before each box, with its equals sign, and the unit after it."""
    gaps = [read_gap(text[a.end : b.start]) for a, b in pairwise(chosen)]
    first = _NAME.search(text[max(0, chosen[0].start - _LONGEST_NAME) : chosen[0].start])
    names = [first[0] if first else "", *(gap.name if gap else "" for gap in gaps)]
    units = [gap.unit if gap else "" for gap in gaps]
    end = chosen[-1].end
    last = _LAST_UNIT.match(text[end : end + _LONGEST_UNIT]) if any(units) else None
    return names, [*units, last[1] if last else ""]
