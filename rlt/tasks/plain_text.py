r"""One writing of an answer: without layout and fonts, and in LaTeX instead of other alphabets.

All of it takes time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_LAYOUT = re.compile(
    r"(?P<row>\\\\)|(?P<none>\\!)|(?P<thin>\\,)|"
    r"\\(?:left|right|[Bb]igg?[lr]?|displaystyle|quad|qquad)(?![A-Za-z])|\\[;:$()\[\]\s]|[$~]"
)
_SAME = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
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
    (re.compile(r"\+\s*\\infty(?![A-Za-z])"), r"\\infty"),
]

_THOUSANDS = re.compile(
    r"(?<=\d),\s*\\!\s*(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3}(?!\d))|(?<=\d)\\[,;: ](?=\d{3}(?!\d))"
)
"""A comma with the LaTeX that closes the gap behind it, or a thin space, before three digits."""
_FONT = (
    r"\\(?:math(?:rm|bf|it|sf|tt|normal)|text(?:bf|it|rm|sf|tt|normal|up)?|mbox|operatorname|boldsymbol|bm|underline|"
    r"(?:text)?color\s*\{[a-z]+\})"
)
_NESTED = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
_STYLED = re.compile(_FONT + r"\s*\{(" + _NESTED + r")\}")
_SWITCH = re.compile(r"\\(?:rm|bf|it|sf|tt|em|boldmath)(?![A-Za-z])\s*")
_ALL_BRACED = re.compile(r"\{([^{}]*)\}")
_ORDINAL = re.compile(r"\^\s*\{?\s*(?:\\(?:text|mathrm|rm)\s*\{?\s*(st|nd|rd|th)\s*\}?)\s*\}?")
_HAS_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|^\s|\s$")
_UNIT_LETTERS = frozenset("mgsLlhNJWVKCFATt")
_QUANTITY_ENDS = re.compile(r"(?:\d|[})\]]|\\pi|\\circ)(?:\\[,;: ]|\s|~)*$")
_REPEATING = re.compile(
    r"(?<![\d.])(?P<whole>\d{0,60})\.(?P<part>\d{0,60})\\(?:overline|bar|dot)\s*(?:\{(?P<many>\d{1,60})\}|(?P<one>\d))(?!\d)"
)
_ALL_MONEY = re.compile(r"(-?)\\?\$\s*(-?[\d.,{}\\!]*\d)")
_CURRENCIES = {
    "\N{EURO SIGN}": "euros",
    "\N{POUND SIGN}": "pounds",
    "\N{YEN SIGN}": "yen",
    "\N{INDIAN RUPEE SIGN}": "rupees",
}
_MONEY = re.compile(f"([{''.join(_CURRENCIES)}])" + r"\s*(-?[\d.,]*\d)")

_SUPERSCRIPTS = dict(
    zip(
        "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f",
        "0123456789+-n",
        strict=True,
    )
)
_SUBSCRIPTS = {chr(0x2080 + i): str(i) for i in range(10)} | {"\u2099": "n"}
_SUPERSCRIPT = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_SUBSCRIPT = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_LETTERS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "theta",
    "lamda",
    "mu",
    "pi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "omega",
)
_GREEK = {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): rf"\{name.replace('lamda', 'lambda')} "
    for name in _LETTERS
}
_SIGNS = str.maketrans(
    {
        **_GREEK,
        **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{FULLWIDTH HYPHEN-MINUS}", "-"),
        **dict.fromkeys("\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}\N{FIGURE SPACE}", " "),
        "\N{MULTIPLICATION SIGN}": r"\times ",
        **dict.fromkeys("\N{MIDDLE DOT}\N{DOT OPERATOR}\N{BULLET}", r"\cdot "),
        "\N{DIVISION SIGN}": "/",
        "\N{FRACTION SLASH}": "/",
        "\N{PLUS-MINUS SIGN}": r"\pm ",
        "\N{INFINITY}": r"\infty ",
        "\N{DEGREE SIGN}": r"^\circ ",
        "\N{UNION}": r"\cup ",
        "\N{INTERSECTION}": r"\cap ",
        "\N{ELEMENT OF}": r"\in ",
        "\N{EMPTY SET}": r"\emptyset ",
        "\N{LESS-THAN OR EQUAL TO}": r"\leq ",
        "\N{GREATER-THAN OR EQUAL TO}": r"\geq ",
        "\N{NOT EQUAL TO}": r"\neq ",
    }
)
_SQRT = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)")
_ROOT = re.compile("([\N{SQUARE ROOT}\N{CUBE ROOT}])" + r"\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_AND = re.compile(r",?\s(?:and|or)\s")
_ALL_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}\\]*)\}")
_CAPITALISED = re.compile(r"[A-Z]?[a-z]+(?: [A-Z]?[a-z]+)*")
_DEEPEST = 3
"""Fonts within fonts."""


def plain_text(text: str) -> str:
    """Return a text without layout, in ASCII signs and one writing of fractions, roots and numbers."""
    plain = text if text.isascii() else _in_ascii(text)
    if "$" in plain:
        money = _ALL_MONEY.fullmatch(plain.strip())
        plain = f"{money[1]}{money[2]} dollars" if money else plain
    if "\\" in plain or "$" in plain or "~" in plain or "{,}" in plain:
        plain = _without_fonts(_THOUSANDS.sub("", plain))
        thin = " " if r"\text" in plain or r"\mathrm" in plain else ""
        plain = _LAYOUT.sub(lambda m: m["row"] or ("" if m["none"] else thin if m["thin"] else " "), plain)
        plain = _REPEATING.sub(_as_fraction, plain)
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


def _in_ascii(text: str) -> str:
    """Return a text with LaTeX for the signs of other alphabets that answers are written in."""
    plain = _SUPERSCRIPT.sub(lambda m: f"^{{{''.join(_SUPERSCRIPTS[c] for c in m[0])}}}", text)
    plain = _SUBSCRIPT.sub(lambda m: f"_{{{''.join(_SUBSCRIPTS[c] for c in m[0])}}}", plain)
    plain = _VULGAR.sub(_vulgar, plain)
    plain = _MONEY.sub(lambda m: f"{m[2]} {_CURRENCIES[m[1]]}", plain)
    plain = _ROOT.sub(_root, plain.translate(_SIGNS))
    return unicodedata.normalize("NFKC", plain)


def _root(match: re.Match[str]) -> str:
    order = "[3]" if match[1] == "\N{CUBE ROOT}" else ""
    return rf"\sqrt{order}{{{match[2] or match[3]}}}"


def _vulgar(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[0]).partition("\N{FRACTION SLASH}")
    return rf"\frac{{{above}}}{{{below}}}"


def _without_fonts(plain: str) -> str:
    r"""Return a formula in which single letters, numbers and formulas have no font.

    math-verify 0.9.0 drops text commands with what they hold, so that 1 + 1/\mathrm{e} would be
    1 - 1/\mathrm{e}. Words, and units behind a quantity, keep theirs.
    """
    plain = _ORDINAL.sub(r"\\text{\1}", _SWITCH.sub("", plain))
    for _ in range(_DEEPEST):
        changed = _STYLED.sub(_styled, plain)
        if changed == plain:
            break
        plain = changed
    whole = _ALL_BRACED.fullmatch(plain.strip())
    return whole[1] if whole else plain


def _styled(match: re.Match[str]) -> str:
    content = match[1]
    if _HAS_WORD.search(content):
        return match[0]
    if content in _UNIT_LETTERS and _QUANTITY_ENDS.search(
        match.string, max(0, match.start() - 12), match.start()
    ):
        return match[0]
    follows_letter = match.string[match.start() - 1 : match.start()].isalpha()
    return f" {content}" if follows_letter and content[:1].isalpha() else content


def _as_fraction(match: re.Match[str]) -> str:
    """Return a repeating decimal as a fraction: 0.1666… is 1/6."""
    part, period = match["part"], match["many"] or match["one"]
    value = Fraction(int((match["whole"] or "0") + part or "0"))
    value = (value + Fraction(int(period), 10 ** len(period) - 1)) / 10 ** len(part)
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
