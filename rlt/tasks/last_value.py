r"""The last value that a text names without a mark: its last formula, or its last number with all around it.

What is taken is a whole: of `\frac{2}{5}`, 2^10 or (3, 4) never a number within. All of it takes time linear
in the text.
"""

from __future__ import annotations

import re

from rlt.tasks.formulas import Span, formulas, is_symbol, last_together

_NUMBER = re.compile(r"(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)")
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z*\\$])|\n")
_CLAUSE = re.compile(
    r"[\s,;(](?:since|because|where|when(?:ever)?|given|if|for (?:all|any|each|every|some))\b", re.IGNORECASE
)
_SAYS = re.compile(
    r"=|\b(?:is|are|was|so|get|gets|have|has|had|equals?|makes?|gives?|thus|hence|therefore|total|leaves?)\b"
)
_MARKS = re.compile(r"<<[^<>]*>>|\\(?:boxed|fbox)\s*\{|</?answer>", re.IGNORECASE)
"""GSM8K's calculations, and marks of an answer that was cut."""
_LONGEST = 400
"""Characters around the last number that are looked at."""
_MOST_TOKENS = 24
_OPERATORS = "+-*/^=\u00d7\u00b7\u00f7\u2212"
_OPERATOR_WORDS = (r"\cdot", r"\times", "mod", "choose")
_OPENED, _CLOSED = "([{", ")]}"
_OUTSIDE = "\"'*_:;,?`\u201c\u201d"
_IN_PARENTHESES = re.compile(r"\([^(),]*\)")
_PLAIN = re.compile(
    r"(?P<sign>[-+\u2212]?)[$\u20ac\u00a3\\]*(?P<number>(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|\.\d+)(?:/\d+)?)"
    r"(?P<percent>\\?%)?"
)
_UNIT_AFTER = re.compile(r"[$]?([-\u2212]?[\d.,]*\d)[-/][A-Za-z]{2,}[A-Za-z./-]*")
_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sqrt|sin|cos|tan|log|ln|pi|exp|mod|choose)(?![A-Za-z]))[A-Za-z]{2,}"
)
_STARTS_AS_FACTOR = re.compile("[\\\\\N{SQUARE ROOT}\N{GREEK SMALL LETTER PI}]")


def last_formula(text: str) -> str | None:
    """Return the last formula, with those joined to it by "and" or "or"; None where a number comes later.

    Single names do not count, and neither does what a clause such as "since $n > 0$" holds.
    """
    found = [span for span in formulas(text) if not is_symbol(span.content)]
    while found and _is_aside(found, text):
        found.pop()
    if not found or _number_comes_later(text, found[-1]):
        return None
    chosen = last_together(found, text, lambda gap: gap.has_and)
    return ", ".join(found[i].content for i in chosen) or None


def _is_aside(found: list[Span], text: str) -> bool:
    """Whether the last formula is in a clause behind what the sentence says."""
    sentence = text[max(found[-2].end if len(found) > 1 else 0, found[-1].start - _LONGEST) : found[-1].start]
    ends = list(_SENTENCE_END.finditer(sentence))
    if ends:
        sentence = sentence[ends[-1].end() :]
    clause = _CLAUSE.search(sentence)
    if clause is None:
        return False
    joined = len(found) > 1 and not ends
    return joined or _NUMBER.search(sentence[: clause.start()]) is not None


def _number_comes_later(text: str, formula: Span) -> bool:
    rest = text[formula.end :]
    number = _NUMBER.search(rest)
    if number is None:
        return False
    between = rest[: number.start()]
    clause = _CLAUSE.search(between)
    if clause:
        return False
    return bool(_SENTENCE_END.search(between) or _SAYS.search(between))


def last_value(text: str) -> str | None:
    """Return the last number with what belongs to it, such as 2^10, (3, 4) or 3/4."""
    text = _MARKS.sub(" ", text)
    end = len(text)
    for _ in range(_MOST_TOKENS):
        last = _last_number_before(text, end)
        if last is None:
            return None
        value = _around(text, *last)
        if value is not None:
            return value
        end = last[0]
    return None


def _last_number_before(text: str, end: int) -> tuple[int, int] | None:
    """Return where the last number of text[:end] starts and ends that no clause such as "since" holds."""
    while end > 0:
        stop = next((i for i in range(end - 1, -1, -1) if text[i].isdecimal()), None)
        if stop is None:
            return None
        start = stop
        while start > 0 and (text[start - 1].isdecimal() or text[start - 1] in ".,"):
            start -= 1
        before = text[max(0, start - _LONGEST) : start]
        ends = list(_SENTENCE_END.finditer(before))
        sentence = before[ends[-1].end() :] if ends else before
        clause = _CLAUSE.search(sentence)
        if clause is None or not _NUMBER.search(sentence[: clause.start()]):
            return start, stop + 1
        end = start - len(sentence) + clause.start()
    return None


def _around(text: str, start: int, stop: int) -> str | None:
    """Return the value that holds the number text[start:stop]; None where it is part of a name."""
    line_start = max(text.rfind("\n", 0, start) + 1, start - _LONGEST)
    line_end = text.find("\n", stop)
    line_end = min(len(text) if line_end < 0 else line_end, stop + _LONGEST)
    tokens = list(re.finditer(r"\S+", text[line_start:line_end]))
    here = next((i for i, t in enumerate(tokens) if line_start + t.end() >= stop), None)
    if here is None:
        return None
    words = [token[0] for token in tokens]
    first, last = _extent(words, here)
    value = _outside_off(" ".join(words[first : last + 1]), at_end=last + 1 == len(words))
    alone = _outside_off(words[here], at_end=True)
    if _WORD.search(value):
        value = alone
    if "=" in value:
        value = value.rpartition("=")[2].strip() or value
    plain = _PLAIN.fullmatch(value)
    if plain:
        return plain["sign"] + plain["number"] + (plain["percent"] or "")
    unit = _UNIT_AFTER.fullmatch(value)
    if unit:
        return unit[1]
    return (
        None
        if re.match(r"[A-Za-z]{2,}", value) and not re.match(r"sqrt|sin|cos|tan|log|ln|pi", value)
        else value
    )


def _extent(words: list[str], here: int) -> tuple[int, int]:
    """Return the first and the last word of what a word belongs to: operators and brackets reach on."""
    first = last = here
    for _ in range(_MOST_TOKENS):
        value = " ".join(words[first : last + 1])
        depth = sum(value.count(mark) for mark in _OPENED) - sum(value.count(mark) for mark in _CLOSED)
        reaches_left = words[first][0] in _OPERATORS[2:] + "+" or (
            first > 0 and (words[first - 1][-1] in _OPERATORS or words[first - 1] in _OPERATOR_WORDS)
        )
        reaches_left |= words[first] in ("-", "\N{MINUS SIGN}", r"\cdot", r"\times")
        is_factor = (
            first > 0 and bool(_STARTS_AS_FACTOR.match(words[first])) and words[first - 1][-1].isdecimal()
        )
        reaches_right = last + 1 < len(words) and (
            words[last + 1][0] in _OPERATORS
            or words[last][-1] in _OPERATORS
            or words[last + 1][0] in "\\\u221a\u03c0"
        )
        if first > 0 and (reaches_left or is_factor or depth < 0):
            first -= 1
        elif reaches_right or (depth > 0 and last + 1 < len(words)):
            last += 1
        else:
            break
    return first, last


def _outside_off(value: str, *, at_end: bool) -> str:
    """Return a value without the punctuation of the sentence around it."""
    value = value.strip(_OUTSIDE)
    value = value.lstrip("=").strip()
    if value.endswith(".") or (at_end and value.endswith("!")):
        value = value[:-1]
    value = value.strip(_OUTSIDE)
    # A bracket whose partner is elsewhere in the sentence; of points and intervals both are here.
    if not any(mark in value for mark in _OPENED) and value[-1:] in _CLOSED:
        value = value[:-1]
    if not any(mark in value for mark in _CLOSED) and value[:1] in _OPENED:
        value = value[1:]
    if _IN_PARENTHESES.fullmatch(value):
        value = value[1:-1]
    return value.strip(_OUTSIDE)
