r"""Answers that are made of parts: lists, sets, points, intervals, unions, and values with a name.

Texts are those of plain_text.py. All of it takes time linear in the text, but for matching up to 50 parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

Same = Callable[[str, str], bool | None]
"""Whether two texts say the same; None where that is open."""

_TOKEN = re.compile(r"\\(?:\{|\}|[A-Za-z]+|.)|[()\[\]{},;=]", re.DOTALL)
_OPEN, _CLOSE = frozenset(("(", "[", "{", r"\{")), frozenset((")", "]", "}", r"\}"))
_MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*")
_BUILT = re.compile(
    r"\\\{\s*[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{R\})?\s*(?:\\mid(?![A-Za-z])|\||:)\s*([^{}]*?)\s*\\\}"
)
_NAME = re.compile(
    r"(?:\\?[A-Za-z]+|\\(?:text|mathrm|textbf)\s*\{[^{}]*\}|\\(?:vec|overline|mathbf|hat)\s*\{[A-Za-z]+\}|"
    r"m?\\angle\s*[A-Z]+|\|[A-Za-z]+\||\[[A-Z]+\])(?:_\{?\w+\}?)?'*(?:\^\{?-1\}?)?(?:\s*\([^()]*\))?"
)
_TUPLE_OF_NAMES = re.compile(r"\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\)")
_SUM_OF_NAMES = re.compile(r"[A-Za-z](?:\s*[-+*]?\s*[A-Za-z])*")
_UNKNOWN = re.compile(r"(?<![A-Za-z\\])[xyz](?![A-Za-z])")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_MANY = re.compile(r"[\d^]")
_SIDE = r"(-?(?:[^<>=,A-Za-z]|\\(?!leq|geq)[a-z]+)+?)"
_BETWEEN = re.compile(rf"{_SIDE}\s*(<|\\leq)\s*[A-Za-z]\s*(<|\\leq)\s*{_SIDE}")
_BEYOND = re.compile(rf"[A-Za-z]\s*(<|>|\\leq|\\geq)\s*{_SIDE}")
_MOST_MATCHED = 50


class Parts(NamedTuple):
    """An answer with its brackets, which are empty for a list."""

    opened: str
    closed: str
    items: list[str]


def split(plain: str, *marks: str) -> list[str]:
    """Return the pieces of a text between marks that are in no bracket."""
    pieces: list[str] = []
    depth = start = 0
    for match in _TOKEN.finditer(plain):
        token = match[0]
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
        elif depth == 0 and token in marks:
            pieces.append(plain[start : match.start()].strip())
            start = match.end()
    return [*pieces, plain[start:].strip()]


def read_parts(plain: str) -> Parts | None:
    """Return the parts of an answer; None for one that has a single part."""
    inside = _inside(plain)
    if inside is None:
        items = split(plain, ",", ";")
        opened = closed = ""
    else:
        opened, content, closed = inside
        items = split(content, ",", ";")
    if not all(items) or (len(items) == 1 and opened != r"\{"):
        return None
    return Parts(opened, closed, items)


def _inside(plain: str) -> tuple[str, str, str] | None:
    """Return opening bracket, content and closing bracket of a text that one pair of brackets holds."""
    depth = 0
    first: str | None = None
    for match in _TOKEN.finditer(plain):
        token = match[0]
        if first is None:
            if match.start() or token not in ("(", "[", r"\{"):
                return None
            first = token
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth == 0 and token in _CLOSE:
            if match.end() < len(plain):
                return None
            return (first, plain[len(first) : match.start()].strip(), token)
    return None


def value_of(answer: str, reference: str) -> tuple[str, str] | bool | None:
    """Return both sides without a name that only one of them has, or that both have.

    None where neither has such; False where one side is an equation and the other only its right side.
    """
    if "=" not in answer + reference and r"\approx" not in answer + reference:
        return None
    if len(split(answer, ",", ";")) > 1 or len(split(reference, ",", ";")) > 1:
        return None
    left, right = _rounded_off(answer), _rounded_off(reference)
    lefts, rights = split(left, "="), split(right, "=")
    if len(lefts) > 1 and len(rights) > 1:
        if lefts[0] == rights[0] and is_name(lefts[0]):
            return lefts[-1], rights[-1]
    elif len(lefts) > 1:
        value = _value(lefts)
        return (
            (value, right)
            if value is not None and (is_named(lefts[0], lefts) or _is_quantity(lefts[0]))
            else False
        )
    elif len(rights) > 1:
        value = _value(rights)
        return (left, value) if value is not None and is_named(rights[0], rights) else False
    return (left, right) if (left, right) != (answer, reference) else None


def _rounded_off(plain: str) -> str:
    r"""Return what is before `\approx`, or behind it where a name does."""
    if r"\approx" not in plain:
        return plain
    first, *others = split(plain, r"\approx")
    return others[-1] if others and is_name(first) else first


def _value(sides: Sequence[str]) -> str | None:
    """Return the side of an equation that holds its value."""
    if not all(sides):
        return None
    return sides[0] if is_name(sides[-1]) and not is_name(sides[0]) else sides[-1]


def is_named(left: str, sides: Sequence[str]) -> bool:
    """Whether an equation only gives a name to a value, or calculates it from numbers."""
    return (
        is_name(left)
        or is_name(sides[-1])
        or _SUM_OF_NAMES.fullmatch(left) is not None
        or not _LETTER.search(left)
    )


def _is_quantity(left: str) -> bool:
    """Whether the left side of an equation is something asked for, such as 100a+b, and not 2x+3y."""
    return not (_UNKNOWN.search(left) and _MANY.search(left))


def is_name(plain: str) -> bool:
    """Whether a text names something: x, f(x), a_10, AB, (x, y)."""
    return len(plain) < 60 and (_NAME.fullmatch(plain) or _TUPLE_OF_NAMES.fullmatch(plain)) is not None


def as_interval(plain: str) -> str | None:
    """Return an inequality of one name as an interval."""
    between = _BETWEEN.fullmatch(plain) if len(plain) < 200 else None
    if between:
        low, first, second, high = (group.strip() for group in between.groups())
        return f"{'(' if first == '<' else '['}{low}, {high}{')' if second == '<' else ']'}"
    beyond = _BEYOND.fullmatch(plain) if len(plain) < 200 else None
    if beyond is None:
        return None
    sign, end = beyond[1], beyond[2].strip()
    if sign in (">", r"\geq"):
        return rf"{'(' if sign == '>' else '['}{end}, \infty)"
    return rf"(-\infty, {end}{')' if sign == '<' else ']'}"


def _content(plain: str) -> str:
    """Return what a set holds of which a text names a member or builds it by a condition."""
    built = _BUILT.fullmatch(plain)
    if built:
        return built[1].strip()
    member = _MEMBER.match(plain)
    return plain[member.end() :] if member else plain


def _pieces(plain: str) -> list[str]:
    """Return the pieces of a union, or of inequalities of which one must hold."""
    pieces = split(plain, r"\cup")
    if len(pieces) == 1:
        intervals = [as_interval(item) for item in split(plain, ",")]
        if len(intervals) > 1 and all(intervals):
            return [interval for interval in intervals if interval]
    return pieces


def compare_parts(left: str, right: str, same: Same) -> bool | None:
    """Whether two answers have the same parts; None where neither has parts, or `same` leaves it open."""
    contents = _content(left), _content(right)
    if contents != (left, right):
        return same(*contents)
    lefts, rights = _pieces(left), _pieces(right)
    if r"\cup" in left + right and (len(lefts) > 1 or len(rights) > 1):
        return (_unordered(lefts, rights, same) or None) if len(lefts) == len(rights) else None
    one, other = read_parts(left), read_parts(right)
    if one is None or other is None:
        return _with_a_single(one, other, left, right, same)
    for parts, single in ((one, right), (other, left)):
        if parts.opened == r"\{" and len(parts.items) == 1 and len(split(single, ",", ";")) == 1:
            return same(parts.items[0], single) if parts is one else same(single, parts.items[0])
    if one.opened and other.opened:
        if (one.opened, one.closed) != (other.opened, other.closed):
            return False
    elif not (one.opened + other.opened in ("", "(") or r"\{" in (one.opened, other.opened)):
        return False
    is_set = r"\{" in (one.opened, other.opened)
    if not one.opened and not other.opened:
        return _lists(one.items, other.items, same)
    items = [_distinct(p.items) if is_set else p.items for p in (one, other)]
    return (_unordered if is_set else _ordered)(items[0], items[1], same)


def _with_a_single(one: Parts | None, other: Parts | None, left: str, right: str, same: Same) -> bool | None:
    """Compare where one side has no parts."""
    if one is None and other is None:
        return None
    parts, single, is_left = (one, right, True) if one else (other, left, False)
    assert parts is not None
    if parts.opened == r"\{" and len(parts.items) == 1:
        return same(parts.items[0], single) if is_left else same(single, parts.items[0])
    interval = as_interval(single) if parts.opened in ("(", "[") else None
    if interval:
        return compare_parts(left, interval, same) if is_left else compare_parts(interval, right, same)
    return False if single.replace(".", "", 1).removeprefix("-").isdigit() else None


def _lists(left: list[str], right: list[str], same: Same) -> bool | None:
    """Compare lists: by name where both have names, in order where one has different names, else as sets."""
    names = [[_name_of(item) for item in items] for items in (left, right)]
    distinct = [all(of) and len({name for name, _ in of if name}) == len(of) > 1 for of in names]
    if all(distinct):
        both = [dict(of) for of in names]
        if both[0].keys() == both[1].keys():
            return _ordered([both[0][n] for n in both[1]], [*both[1].values()], same)
        return None
    bare = [[value for _, value in of] for of in names]
    return (_ordered if any(distinct) else _unordered)(bare[0], bare[1], same)


def _name_of(item: str) -> tuple[str, str]:
    """Return the name of an item, or nothing, and its value."""
    sides = split(item, "=")
    return (sides[0], sides[-1]) if len(sides) == 2 and is_name(sides[0]) and sides[-1] else ("", item)


def _distinct(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _ordered(left: list[str], right: list[str], same: Same) -> bool | None:
    if len(left) != len(right):
        return False
    verdict: bool | None = True
    for one, other in zip(left, right, strict=True):
        found = same(one, other)
        if found is False:
            return False
        verdict = None if found is None else verdict
    return verdict


def _unordered(left: list[str], right: list[str], same: Same) -> bool | None:
    if len(left) != len(right):
        return False
    rest = list(right)
    others = (
        [one for one in left if one not in rest or rest.remove(one)] if len(left) <= _MOST_MATCHED else None
    )
    if others is None:
        return sorted(left) == sorted(right)
    is_open = False
    for one in others:
        found = [same(one, other) for other in rest]
        if True in found:
            del rest[found.index(True)]
        elif None in found:
            is_open = True
        else:
            return False
    return None if is_open else True
