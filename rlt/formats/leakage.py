"""How much of a solution an explanation gives away word for word, instead of leading to it. Pure text.

Words are runs of letters, digits and underscores in lower case, so mark-up, punctuation and white space do
not count. Which measure fits depends on the solution's length: a long solution is copied when its wording
turns up; a short one ("72") is in every good explanation, so what matters is whether it comes first.
"""

from __future__ import annotations

import re

SEQUENCE = 8
"""Words of a sequence that is not repeated by chance, and of the shortest solution that counts as long."""
FIRST_PART = 0.1
"""Share of an explanation's words before which a short solution counts as stated first."""
_MIN_CHARACTERS = 2
_WORD = re.compile(r"\w+")


def copied_share(solution: str, explanation: str, n: int = SEQUENCE) -> float | None:
    """Return the share of the solution's n-word sequences that are in the explanation.

    Each sequence counts once. None where the solution has fewer than n words. In honest reasoning traces it
    is about 0.2 for n = 8, since a derivation and its summary share phrases.
    """
    sought = _sequences(solution, n)
    return len(sought & _sequences(explanation, n)) / len(sought) if sought else None


def states_first(question: str, solution: str, explanation: str) -> bool | None:
    """Return whether the explanation states a short solution within its first tenth.

    None where that is meaningless: the solution is long (see `copied_share`), has a single character
    ("B", "7"), or is in the question already.
    """
    words = _words(solution)
    sought = _spaced(words)
    if len(words) >= SEQUENCE or len("".join(words)) < _MIN_CHARACTERS or sought in _spaced(_words(question)):
        return None
    found = _words(explanation)
    before, is_stated, _ = _spaced(found).partition(sought)
    return bool(is_stated) and len(before.split()) < FIRST_PART * len(found)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _spaced(words: list[str]) -> str:
    return f" {' '.join(words)} "


def _sequences(text: str, n: int) -> set[tuple[str, ...]]:
    words = _words(text)
    return set(zip(*(words[i:] for i in range(n)), strict=False))
