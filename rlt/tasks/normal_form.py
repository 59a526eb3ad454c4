r"""Answers in one writing, and what can be said of two of them without computer algebra.

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

_MOST_DIGITS = 300
"""Longer numbers are compared as digits, not as fractions."""
_CLOSE = Fraction(1, 10**6)
"""Within it math-verify decides whether a decimal is another number rounded; it compares six decimals."""

_LAYOUT = re.compile(
    r"(?P<row>\\\\)|(?P<none>\\!)|(?P<thin>\\,)|"
    r"\\(?:left|right|[Bb]igg?[lr]?|displaystyle|quad|qquad)(?![A-Za-z])|\\[;:$()\[\]\s]|[$~]"
)
_SAME = [
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*(?=\{)"), r"\\frac{\1}"),
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*(\d|[A-Za-z](?![A-Za-z]))"), r"\\sqrt{\1}"),
    (re.compile(r"\^\s*\{\s*([\dA-Za-z])\s*\}"), r"^\1"),
    (re.compile(r"_\s*\{\s*([\dA-Za-z])\s*\}"), r"_\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\text\s*\{\s*(?:and|or)\s*\}"), ", "),
    (re.compile(r"\\(?:le|leq|leqslant)(?![A-Za-z])"), r"\\leq "),
    (re.compile(r"\\(?:ge|geq|geqslant)(?![A-Za-z])"), r"\\geq "),
    (re.compile(r"\\(?:ne|neq)(?![A-Za-z])"), r"\\neq "),
    (re.compile(r"\\(?:lbrace|rbrace)(?![A-Za-z])"), lambda m: r"\{" if "l" in m[0] else r"\}"),
]
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{FULLWIDTH HYPHEN-MINUS}", "-"),
        "\N{MULTIPLICATION SIGN}": r"\times ",
        "\N{GREEK SMALL LETTER PI}": r"\pi ",
        "\N{INFINITY}": r"\infty ",
        "\N{DEGREE SIGN}": r"^\circ ",
        "\N{SUPERSCRIPT TWO}": "^2",
        "\N{SUPERSCRIPT THREE}": "^3",
        "\N{UNION}": r"\cup ",
        "\N{LESS-THAN OR EQUAL TO}": r"\leq ",
        "\N{GREATER-THAN OR EQUAL TO}": r"\geq ",
    }
)
_SQRT = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)")
_ROOT = re.compile("\N{SQUARE ROOT}" + r"\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_AND = re.compile(r",?\s(?:and|or)\s")
_SPACE = re.compile(r"(?<![\dA-Za-z])\s+|\s+(?![\dA-Za-z])")
_ALL_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}\\]*)\}")
_CAPITALISED = re.compile(r"[A-Z]?[a-z]+(?: [A-Z]?[a-z]+)*")

_DECIMAL = re.compile(r"([-+]?)\s*(\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)?(?:\.(\d*))?")
_FRACTION = re.compile(
    r"([-+]?)\s*(?:(\d{1,99})\s*(?=\\)|(\d{1,99})\s(?=\d))?"
    r"(?:\\frac\s*\{\s*(-?\d{1,99})\s*\}\s*\{\s*(-?\d{1,99})\s*\}|(-?\d{1,99})\s*/\s*(-?\d{1,99}))"
)
_POWER_OF_TEN = re.compile(
    r"([-+]?\d{1,99}(?:\.\d{1,99})?)(?:[eE]|\s*\\(?:times|cdot)\s*10\s*\^\s*(?=\d|\{))\{?([-+]?\d{1,2})\}?"
)
_PERCENT = re.compile(r"\s*(?:\\?%|\\?\s*(?:percent|per cent))\s*$")
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|\bdegrees?)\s*$")
_UNIT = re.compile(
    r"(?P<number>[-+\d.,/ ]*\d|.*[})\d]|.*\\pi)\s*(?:\\(?:text|mathrm|mbox|textrm)\s*\{(?P<latex>[^{}]*)\}|"
    r"(?P<plain> [A-Za-z]{3,}[A-Za-z /]*|"
    r" ?(?:[cmk]m|[mk]?g|m?[lL]|ft|in|yd|mi|lb|oz|hr|min|sec|mph|m/s|km/h)))"
    r"(?P<power>\s*\^\s*\{?\s*[23]\s*\}?)?",
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


def decide(answer: str, reference: str) -> bool | None:
    """Whether an answer says the same as a reference; None where that takes computer algebra."""
    sides = plain_text(answer), plain_text(reference)
    if not all(sides):
        return False
    verdict = _compare(*sides)
    if verdict is not None:
        return verdict
    percents = [_PERCENT.search(side) for side in sides]
    if any(percents):
        bare = _without(sides, percents)
        return _compare(*bare) if all(percents) else _compare_percent(*(bare if percents[0] else bare[::-1]))
    degrees = [_DEGREES.search(side) for side in sides]
    if any(degrees):
        return _compare(*_without(sides, degrees))
    bases = [_BASE.fullmatch(side) for side in sides]
    if any(bases):
        if all(bases) and len({base["base"] for base in bases if base}) > 1:
            return False
        return _compare(*(b["digits"] if b else side for b, side in zip(bases, sides, strict=True)))
    units = [_UNIT.fullmatch(side) for side in sides]
    if any(units):
        units = [unit or _SHORT_UNIT.fullmatch(side) for unit, side in zip(units, sides, strict=True)]
    if all(units) and _unit(units[0]) != _unit(units[1]):
        return False
    return _compare(*(u["number"].strip() if u else side for u, side in zip(units, sides, strict=True)))


def _without(sides: Sequence[str], ends: Sequence[re.Match[str] | None]) -> list[str]:
    return [side[: end.start()] if end else side for side, end in zip(sides, ends, strict=True)]


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


def plain_text(text: str) -> str:
    """Return a text without layout, in ASCII signs and one writing of fractions and roots."""
    plain = text
    if not plain.isascii():
        plain = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", plain.translate(_SIGNS))
    if "\\" in plain or "$" in plain or "~" in plain:
        thin = " " if r"\text" in plain or r"\mathrm" in plain else ""
        plain = _LAYOUT.sub(lambda m: m["row"] or ("" if m["none"] else thin if m["thin"] else " "), plain)
    if "\\" in plain or "^" in plain or "_" in plain or "{,}" in plain:
        for pattern, same in _SAME:
            plain = pattern.sub(same, plain)
    if "sqrt" in plain:
        plain = _SQRT.sub(r"\\sqrt{\1}", plain)
    if " and " in plain or " or " in plain:
        plain = _AND.sub(", ", plain)
    plain = " ".join(plain.split()).rstrip(".").rstrip()
    whole = _ALL_TEXT.fullmatch(plain)
    if whole:
        plain = whole[1].strip(" .")
    return plain.lower() if _CAPITALISED.fullmatch(plain) else plain
