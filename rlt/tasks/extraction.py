r"""What a text answers: named rules, tried in order. Each takes time linear in the text.

The orders are data. `skythought` is that of SkyThought at 4bb8f3e: the last box, else what follows an answer
phrase, else the last number; of multiple choice the last letter that stands alone. Unlike there, a box has to
be closed, and 3/4 is one number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence

Rule = Callable[[str], str | None]
"""Returns the answer in a text; None where the rule finds none."""
FINAL_MARK = "####"
"""GSM8K writes the answer behind it."""
_LONGEST_LINE = 200
"""Characters of a line that may be an answer as it is."""
_NEAR = 60
"""Characters after an answer phrase in which the letter of an option stands."""

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]")
_PHRASE = re.compile(r"\banswers?\b(?:\s+(?:is|are)\b|\s*[:=])", re.IGNORECASE)
_PHRASE_END = re.compile(
    r"[.!?](?=\s|$)|\s(?:because|since|so|as|which|where|not)\b|,\s(?=[a-z]{2})|\s\(?i\.e\."
)
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(r"(?:(?<![\w)}])[-\u2212])?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_NO_WORD = re.compile(
    r"\\(?:text|textbf|mathrm|mbox|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|\b(?:sqrt|sin|cos|tan|log|ln|pi|or|and)\b"
)
_QUANTITY = re.compile(r"[-+]?\$?[\d.,/]+ ?[A-Za-z/]+(?: [a-z/]+)?(?:\^\d)?\.?")
_WORD = re.compile(r"[^\W\d_]{2,}")
_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-D](?![A-Za-z0-9])")
_ONE_LETTER = re.compile(r"(?:\\[a-z]+\{|[\s({*])*([A-D])(?:[\s)}*.]*|[\s)}*]*[).:].*)", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last `\boxed{…}` or `\fbox{…}` that is closed; braces must balance."""
    opened: list[int | None] = []  # where the content of a box starts, None for any other brace
    best: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        token = match[0]
        if token.endswith("{") and token != r"\{":
            opened.append(match.end() if len(token) > 1 else None)
        elif token == "}" and opened and (start := opened.pop()) is not None:
            best = max(best or (0, 0), (start, match.start()))
    return (best and text[slice(*best)].strip()) or None


def after_final_mark(text: str) -> str | None:
    """Return the line behind the last `####`."""
    _, mark, rest = text.rpartition(FINAL_MARK)
    return (rest.strip().partition("\n")[0].strip() or None) if mark else None


def after_answer_phrase(text: str) -> str | None:
    """Return what the last "the answer is" or "answer:" is followed by, up to the end of the clause."""
    rest = _after_last(_PHRASE, text)
    if rest is None:
        return None
    rest = rest.lstrip(" \t\r\n:=*")
    if formula := _FORMULA.match(rest):
        return next(filter(None, formula.groups())).strip() or None
    line = rest.partition("\n")[0]
    end = _PHRASE_END.search(line)
    return (line[: end.start()] if end else line).strip(" \t\r*.,;:!") or None


def last_number(text: str) -> str | None:
    """Return the last number, digits with or without sign, commas, decimals and denominator."""
    return _last(_NUMBER, text)


def whole_formula(text: str) -> str | None:
    r"""Return a text that is one line without words but for units, such as `\frac{1}{2}` or `5 cm`."""
    line = one_line(text)
    if line is None or (_WORD.search(_NO_WORD.sub(" ", line)) and not _QUANTITY.fullmatch(line)):
        return None
    return line


def one_line(text: str) -> str | None:
    """Return a text that is one line of at most 200 characters, such as `no real solutions`."""
    line = text.strip()
    return line if line and len(line) <= _LONGEST_LINE and "\n" not in line else None


def whole_text(text: str) -> str | None:
    """Return the text."""
    return text.strip() or None


def boxed_letter(text: str) -> str | None:
    r"""Return the letter in the last box: `C`, `\text{(C)}`, `C) its text`."""
    box = last_boxed(text)
    letter = _ONE_LETTER.fullmatch(box) if box else None
    return letter and letter[1]


def letter_after_phrase(text: str) -> str | None:
    """Return the first letter that stands alone soon after the last answer phrase, on its line."""
    rest = _after_last(_PHRASE, text)
    letter = rest and _LETTER.search(rest.lstrip()[:_NEAR].partition("\n")[0])
    return letter[0] if letter else None


def last_letter(text: str) -> str | None:
    """Return the last A, B, C or D that is neither in a word nor beside a digit."""
    return _last(_LETTER, text)


RULES: dict[str, Rule] = {
    "last boxed": last_boxed,
    "final mark": after_final_mark,
    "answer phrase": after_answer_phrase,
    "whole formula": whole_formula,
    "last number": last_number,
    "one line": one_line,
    "whole text": whole_text,
    "boxed letter": boxed_letter,
    "letter after phrase": letter_after_phrase,
    "last letter": last_letter,
}
NONE = "none"
"""The rule of a text in which none finds anything."""

Orders = Mapping[str, Sequence[str]]
"""By kind of answer, the rules to try."""
_EXPRESSION = ("last boxed", "whole text")
ORDERS: dict[str, Orders] = {
    "skythought": {
        "math": ("last boxed", "answer phrase", "last number"),
        "choice": ("last letter",),
        "countdown": _EXPRESSION,
    },
    "lenient": {
        "math": (
            *("last boxed", "final mark", "answer phrase", "whole formula"),
            *("last number", "one line"),
        ),
        "choice": ("boxed letter", "letter after phrase", "last letter"),
        "countdown": _EXPRESSION,
    },
}
"""By `evaluate.extraction`. The last number is a guess, which is why `summary.json` counts the rules."""


def extract(text: str, rules: Sequence[str]) -> tuple[str | None, str]:
    """Return the answer in a text and the first rule that finds one; None and "none" where no rule does."""
    for name in rules:
        if (answer := RULES[name](text)) is not None:
            return answer, name
    return None, NONE


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    match = _last_match(pattern, text)
    return match and match[0]


def _after_last(pattern: re.Pattern[str], text: str) -> str | None:
    match = _last_match(pattern, text)
    return match and text[match.end() :]


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None
