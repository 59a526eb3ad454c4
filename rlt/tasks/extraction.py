r"""What a text answers: named rules, tried in order. Each takes time linear in the text.

The orders are data. `skythought` is that of SkyThought at 4bb8f3e: the last box, else what follows an answer
phrase, else the last number; of multiple choice the last letter on its own. Unlike there, a box has to
be closed, and 3/4 is one number. `lenient` takes an answer as a whole: all of several boxes, formulas or
brackets that belong together, never a piece of them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rlt.tasks.boxes import last_boxed, last_boxes
from rlt.tasks.formulas import formulas, read_gap
from rlt.tasks.last_value import last_formula, last_value

Rule = Callable[[str], str | None]
"""Returns the answer in a text; None where the rule finds none."""
FINAL_MARK = "####"
"""GSM8K writes the answer behind it."""
_LONGEST_FORMULAS = 4_000
"""Characters after an answer phrase in which its formulas are looked for."""
_LONGEST_LINE = 200
"""Characters of a line that may be an answer as it is."""
_NEAR = 60
"""Characters after an answer phrase in which the letter of an option is looked for."""

_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_PHRASE = re.compile(r"\banswers?\b(?:\s+(?:is|are)\b|\s*[:=])", re.IGNORECASE)
_PHRASE_END = re.compile(
    r"[.?](?=\s|$)|!(?=\s*$|\s+[A-Z])|\s(?:because|since|so|as|which|where|not)\b|,\s(?=I\b|[a-z]{2})|\s\(?i\.e\."
)
_GOES_ON = re.compile(r"\s*(?:[-+*/^=<>]|\\?[%]|\\[a-z])")
"""What makes a formula the left part of a larger one."""
_NUMBER = re.compile(r"(?:(?<![\w)}])[-\u2212])?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_NO_WORD = re.compile(
    r"\\(?:text|textbf|mathrm|mbox|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|\b(?:sqrt|sin|cos|tan|log|ln|pi|or|and)\b"
)
_QUANTITY = re.compile(r"[-+]?\$?[\d.,/]+ ?[A-Za-z/]+(?: [a-z/]+)?(?:\^\d)?\.?")
_WORD = re.compile("(?:(?![\u00b2\u00b3\u00b9\u2070-\u209c])[^\\W\\d_]){2,}")
_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-D](?![A-Za-z0-9])")
_ONE_LETTER = re.compile(r"(?:\\[a-z]+\{|[\s({*])*([A-D])(?:[\s)}*.]*|[\s)}*]*[).:].*)", re.DOTALL)
_LETTER_OF_TEN = re.compile(
    r"(?<![A-Za-z0-9'])(?:[B-HJ](?![A-Za-z0-9'])|[AI](?=\s*(?:[).,:*}\]]|$)))", re.MULTILINE
)
"""Among ten options; `A` and `I` are words as well, unless something ends there."""
_ONE_LETTER_OF_TEN = re.compile(_ONE_LETTER.pattern.replace("[A-D]", "[A-J]"), re.DOTALL)


def in_answer_tag(text: str) -> str | None:
    """Return the answer in the last `<answer>…</answer>`; the closing tag may be what ended the text."""
    marks = deque(_TAG.finditer(text), maxlen=2)
    if not marks:
        return None
    last, before = marks[-1], marks[0]
    if last[1]:
        content = text[before.end() : last.start()] if len(marks) > 1 and not before[1] else ""
    else:
        content = one_line(text[last.end() :]) or ""
    return extract(one_line(content) or content, _IN_TAG)[0]


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
    if formula := _leading_formulas(rest):
        return formula
    line = rest.partition("\n")[0]
    end = _PHRASE_END.search(line)
    answer = (line[: end.start()] if end else line).strip(" \t\r*,;:")
    return answer.removesuffix(".").rstrip(" *") or None


def _leading_formulas(text: str) -> str | None:
    """Return the formula that a text starts with, and those joined to it; None where more belongs to it."""
    found = formulas(text[:_LONGEST_FORMULAS])
    if not found or found[0].start or _GOES_ON.match(text, found[0].end):
        return None
    num = joined = 1
    while num < len(found) and (gap := read_gap(text[found[num - 1].end : found[num].start])):
        num += 1
        joined = num if gap.has_and else joined
    return ", ".join(span.content for span in found[:joined]) or None


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
    if line.startswith("**") and line.endswith("**"):
        line = line.strip("* ")
    return line if line and len(line) <= _LONGEST_LINE and "\n" not in line else None


def whole_text(text: str) -> str | None:
    """Return the text."""
    return text.strip() or None


def boxed_letter(text: str, pattern: re.Pattern[str]) -> str | None:
    r"""Return the letter in the last box: `C`, `\text{(C)}`, `C) its text`."""
    box = last_boxed(text)
    letter = pattern.fullmatch(box) if box else None
    return letter and letter[1]


def letter_after_phrase(text: str, pattern: re.Pattern[str]) -> str | None:
    """Return the first letter on its own soon after the last answer phrase, on its line."""
    rest = _after_last(_PHRASE, text)
    letter = rest and pattern.search(rest.lstrip()[:_NEAR].partition("\n")[0])
    return letter[0] if letter else None


def last_letter(text: str, pattern: re.Pattern[str]) -> str | None:
    """Return the last letter that is neither in a word nor beside a digit."""
    return _last(pattern, text)


RULES: dict[str, Rule] = {
    "answer tag": in_answer_tag,
    "last boxes": last_boxes,
    "last boxed": last_boxed,
    "final mark": after_final_mark,
    "answer phrase": after_answer_phrase,
    "whole formula": whole_formula,
    "last formula": last_formula,
    "last value": last_value,
    "last number": last_number,
    "one line": one_line,
    "whole text": whole_text,
    "boxed letter": partial(boxed_letter, pattern=_ONE_LETTER),
    "letter after phrase": partial(letter_after_phrase, pattern=_LETTER),
    "last letter": partial(last_letter, pattern=_LETTER),
    "boxed letter of ten": partial(boxed_letter, pattern=_ONE_LETTER_OF_TEN),
    "letter of ten after phrase": partial(letter_after_phrase, pattern=_LETTER_OF_TEN),
    "last letter of ten": partial(last_letter, pattern=_LETTER_OF_TEN),
}
NONE = "none"
"""The rule of a text in which none finds anything."""

Orders = Mapping[str, Sequence[str]]
"""By kind of answer, the rules to try."""
_EXPRESSION = ("last boxed", "whole text")
_OF_TEN = ("boxed letter of ten", "letter of ten after phrase", "last letter of ten")
ORDERS: dict[str, Orders] = {
    "skythought": {
        "math": ("last boxed", "answer phrase", "last number"),
        "choice": ("last letter",),
        "choice10": _OF_TEN,  # SkyThought has a file of that kind, which no published number comes from
        "countdown": _EXPRESSION,
    },
    "lenient": {
        "math": (
            *("answer tag", "last boxes", "final mark", "answer phrase", "whole formula"),
            *("last formula", "last value", "one line"),
        ),
        "choice": ("boxed letter", "letter after phrase", "last letter"),
        "choice10": _OF_TEN,
        "countdown": _EXPRESSION,
    },
}
"""By `evaluate.extraction`. The last value is a guess, which is why `summary.json` counts the rules."""
_IN_TAG = tuple(rule for rule in ORDERS["lenient"]["math"] if rule != "answer tag")


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
