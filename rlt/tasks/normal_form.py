r"""Answers in one notation, and how two of them compare without computer algebra.

`normal_form` brings answers that say the same to the same text where that is cheap: LaTeX that only lays
out goes, numbers are reduced. Equal forms are equal answers; different ones may still be. `decide` adds
what two numbers say to each other. All of it takes time linear in the text.

Conventions where writers differ, as those of the MATH dataset: units, degree signs, currency and the base
of a number need not be repeated (`5\text{ cm}` and 5), but two different units or bases differ; 50\% is 50
or 1/2, as the other side has it; a whole number before a proper fraction is a mixed number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rlt.tasks.last_value import last_value
from rlt.tasks.parts import Same, compare_parts, value_of
from rlt.tasks.plain_text import plain_text

_MOST_DIGITS = 300
"""Longer numbers are compared as digits, not as fractions."""
_CLOSE = Fraction(1, 10**6)
"""Within it math-verify decides whether a decimal is another number rounded; it compares six decimals."""

_SPACE = re.compile(r"(?<![\dA-Za-z])\s+|\s+(?![\dA-Za-z])")
_DEEPEST = 8
"""Parts within parts, and names and units around them."""
_LONGEST_FORMULA = 2_000
"""Characters of a formula that computer algebra is asked about."""
_TOWER = re.compile(r"\^\s*\{?\s*-?\d{6}|(?:\^\s*\{?\s*-?\d+\s*){3}")
"""Powers that would fill the memory or the time of an answer."""
_GROUPS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d)")
_TEXTS = re.compile(r"\\(?:text|mbox|textbf|mathrm|textrm)\s*\{([^{}]*)\}")
_WORDS = re.compile(
    r"(?<![^\s{(.,;:])(?!(?:sqrt|sin|cos|tan|log|ln|pi|exp|mod)\b)[A-Za-z][a-z]{2,}(?![^\s}).,;:!?])"
)
_DIGITS = re.compile(r"\d+")
_DECIMAL = re.compile(r"([-+]?)\s*(\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)?(?:\.(\d*))?")
_FRACTION = re.compile(
    r"([-+]?)\s*(?:(\d{1,99})\s*(?=\\)|(\d{1,99})\s(?=\d))?"
    r"(?:\\frac\s*\{\s*(-?\d{1,99})\s*\}\s*\{\s*(-?\d{1,99})\s*\}|(-?\d{1,99})\s*/\s*(-?\d{1,99}))"
)
_POWER_OF_TEN = re.compile(
    r"([-+]?\d{1,99}(?:\.\d{1,99})?)(?:[eE]|\s*\\(?:times|cdot)\s*10\s*\^\s*(?=\d|\{))\{?([-+]?\d{1,2})\}?"
)
_PERCENT = re.compile(r"\s*(?:\\?%|\\?\s*(?:percent|per cent))\s*$")
_DEGREES = re.compile(
    r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|\bdegrees?)\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?P<scale>[CF]?)\s*\}?$"
)
_UNIT = re.compile(
    r"(?P<number>[-+\d.,/ ]*\d|.*[})\d]|.*\\pi)\s*(?:\\(?:text|mathrm|mbox|textrm)\s*\{(?P<latex>[^{}]*)\}|"
    r"(?P<plain> [A-Za-z]{3,}[A-Za-z /]*|"
    r" ?(?:[cmk]m|[mk]?g|m?[lL]|ft|in|yd|mi|lb|oz|hr|min|sec|mph|m/s|km/h)))"
    r"(?P<power>\s*\^\s*\{?\s*-?[1-9]\s*\}?)?",
    re.DOTALL,
)
_SHORT_UNIT = re.compile(r"(?P<number>[-+\d.,/]+) ?(?P<latex>(?!))?(?P<plain>[mgLsh])(?P<power>\s*\^[23])?")
"""A unit only beside another one: else it is a symbol."""
_BASE = re.compile(r"(?P<digits>[\dA-F]+)_\{?(?P<base>\d+)\}?")
_UNIT_NAMES = {
    **dict.fromkeys(("centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("inches", "inche", "inch"), "in"),
    **dict.fromkeys(("feet", "foot"), "ft"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict.fromkeys(("minute",), "min"),
    **dict.fromkeys(("second", "sec"), "s"),
    **dict.fromkeys(("gram",), "g"),
    **dict.fromkeys(("kilogram",), "kg"),
    **dict.fromkeys(("liter", "litre", "l"), "L"),
    **dict.fromkeys(("square unit", "sq unit"), "unit^2"),
}


_CENTS = {"cent": 1, "dollar": 100}


def normal_form(text: str) -> str:
    """Return an answer in one writing; two answers with the same one say the same."""
    plain = plain_text(text)
    number = read_number(plain)
    if number is not None:
        return str(number)
    return _SPACE.sub("", plain)


def read_number(plain: str) -> Fraction | str | None:
    """Return the number that a text is: a fraction, or of very many digits these; None for anything else."""
    match = _DECIMAL.fullmatch(plain)
    if match and (match[2] or match[3]):
        whole = re.sub("[, ]", "", match[2] or "").lstrip("0") or "0"
        part = (match[3] or "").rstrip("0")
        digits = f"{whole}.{part}" if part else whole
        if match[1] == "-" and digits != "0":
            digits = f"-{digits}"
        return Fraction(digits) if len(digits) <= _MOST_DIGITS else digits
    match = _POWER_OF_TEN.fullmatch(plain)
    if match:
        return Fraction(match[1]) * Fraction(10) ** int(match[2])
    match = _FRACTION.fullmatch(plain)
    if match is None:
        return None
    sign, mixed = (-1 if match[1] == "-" else 1), match[2] or match[3]
    above, below = int(match[4] or match[6]), int(match[5] or match[7])
    if below == 0 or (mixed and not 0 < above < below):
        return None
    return sign * (int(mixed or 0) + Fraction(above, below))


def decide(answer: str, reference: str, algebra: Same = lambda *_: None) -> bool | None:
    """Whether an answer says the same as a reference.

    What takes computer algebra is asked of `algebra`, part by part; without it None is the verdict then.
    """
    return _decide(plain_text(answer), plain_text(reference), algebra, _DEEPEST)


def _decide(left: str, right: str, algebra: Same, depth: int) -> bool | None:
    if not left or not right or depth == 0:
        return False
    verdict = _compare(left, right)
    if verdict is not None:
        return verdict

    def same(one: str, other: str) -> bool | None:
        return _decide(one, other, algebra, depth - 1)

    values = value_of(left, right)
    if isinstance(values, bool):
        return values
    joined = values or tuple(map(_join_thousands, (left, right)))
    if joined != (left, right):
        return same(*joined)
    if (r"\begin" in left) != (r"\begin" in right):
        return False
    for rule in (_by_words, compare_parts):
        verdict = rule(left, right, same)
        if verdict is not None:
            return verdict
    verdict, rest = _by_unit(left, right)
    if verdict is None and rest == (left, right):
        return False if any(map(_is_beyond_algebra, rest)) else algebra(left, right)
    return same(*rest) if verdict is None else verdict


def _same_money(units: Sequence[re.Match[str] | None]) -> bool:
    """Whether an amount in cents is one in dollars: two other units differ."""
    amounts = [(read_number(u["number"].strip()), _CENTS.get(_unit(u))) for u in units if u]
    if not all(isinstance(number, Fraction) and cents for number, cents in amounts):
        return False
    return len({number * cents for number, cents in amounts if isinstance(number, Fraction) and cents}) == 1


def _is_beyond_algebra(plain: str) -> bool:
    """Whether a formula says the same only as one in the same form: computer algebra would not end."""
    return len(plain) > _LONGEST_FORMULA or _TOWER.search(plain) is not None


def _join_thousands(plain: str) -> str:
    """Return a text without the commas in long numbers, unless brackets may make a list of them."""
    if "," not in plain or (plain.startswith(("(", "[", r"\{")) and ",0" not in plain):
        return plain
    return _GROUPS.sub(lambda m: m[0].replace(",", ""), plain)


def _by_words(left: str, right: str, same: Same) -> bool | None:
    """Compare answers with words among the formulas; None where neither has any but units."""
    sides = [_TEXTS.sub(r" \1 ", side) for side in (left, right)]
    words = [_WORDS.findall(side) for side in sides]
    if not any(words) or r"\begin" in left or any(_UNIT.fullmatch(side) for side in (left, right)):
        return None
    if all(words):
        if [w.lower() for w in words[0]] != [w.lower() for w in words[1]]:
            return False
        pieces = [[p.strip(" ,") for p in _WORDS.split(side)] for side in sides]
        if not any(map(any, pieces)):
            return True
        return all(one == other or same(one, other) for one, other in zip(*pieces, strict=True))
    side = sides[0] if words[0] else sides[1]
    value = last_value(side)
    if value is None or value == side or (words[1] and len(_DIGITS.findall(side)) > 1):
        return False if words[1] or value is None else None
    return same(value, right) if words[0] else same(left, value)


def _by_unit(left: str, right: str) -> tuple[bool | None, tuple[str, str]]:
    """Return a verdict by percent signs, degrees, bases and units, or both sides without them."""
    sides = left, right
    percents = [_PERCENT.search(side) for side in sides]
    if any(percents):
        bare = _without(sides, percents)
        return (
            (None, bare)
            if all(percents)
            else (_compare_percent(*(bare if percents[0] else bare[::-1])), sides)
        )
    degrees = [_DEGREES.search(side) for side in sides]
    if any(degrees):
        if all(degrees) and len({match["scale"] for match in degrees if match} - {""}) > 1:
            return False, sides
        return None, _without(sides, degrees)
    bases = [_BASE.fullmatch(side) for side in sides]
    if any(bases):
        if all(bases) and len({base["base"] for base in bases if base}) > 1:
            return False, sides
        left, right = (b["digits"] if b else side for b, side in zip(bases, sides, strict=True))
        return _compare(left, right), sides
    units = [_UNIT.fullmatch(side) for side in sides]
    if any(units):
        units = [unit or _SHORT_UNIT.fullmatch(side) for unit, side in zip(units, sides, strict=True)]
    if all(units) and _unit(units[0]) != _unit(units[1]):
        return _same_money(units), sides
    left, right = (u["number"].strip() if u else side for u, side in zip(units, sides, strict=True))
    return None, (left, right)


def _without(sides: tuple[str, str], ends: Sequence[re.Match[str] | None]) -> tuple[str, str]:
    left, right = (side[: end.start()] if end else side for side, end in zip(sides, ends, strict=True))
    return left, right


def _compare(left: str, right: str) -> bool | None:
    if _SPACE.sub("", left) == _SPACE.sub("", right):
        return True
    number, other = read_number(left), read_number(right)
    if number is None or other is None:
        return None
    return _same_number(number, other, is_rounded="." in left + right)


def _same_number(left: Fraction | str, right: Fraction | str, *, is_rounded: bool) -> bool | None:
    if left == right:
        return True
    if is_rounded and isinstance(left, Fraction) and isinstance(right, Fraction):
        return None if abs(left - right) <= _CLOSE else False
    return False


def _compare_percent(percent: str, other: str) -> bool | None:
    """Whether a number of percent is another number: 50 is 50 percent, and so is 1/2."""
    number, value = read_number(percent), read_number(other)
    if not isinstance(number, Fraction) or not isinstance(value, Fraction):
        return None
    return value in (number, number / 100)


def _unit(match: re.Match[str] | None) -> str:
    assert match is not None
    latex = match["latex"]
    name = " ".join((match["plain"] if latex is None else latex).split()).strip(" .").removesuffix("s")
    power = re.sub(r"[\s{}]", "", match["power"] or "")
    for word, shown in (("square ", "^2"), ("sq ", "^2"), ("cubic ", "^3")):
        if name.startswith(word):
            name, power = name.removeprefix(word), shown
    return _UNIT_NAMES.get(name.lower(), name) + power
