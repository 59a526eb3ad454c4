"""When two texts count as the same, and what words they consist of. Pure."""

from __future__ import annotations

import re
import unicodedata

_ONE_BY_ONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Characters of scripts that put no space between words: each counts as a word."""
_WORD = re.compile(rf"[{_ONE_BY_ONE}]|[^\W_{_ONE_BY_ONE}]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")


def comparable(text: str) -> str:
    """Return a text in the form in which it is compared: one Unicode form, one case, single spaces.

    NFC and not NFKC, which would make x² the same as x2. Signs stay: 1+2 is not 1-2.
    """
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a text in one form: no case, no punctuation, no LaTeX signs."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(_THOUSANDS.sub("", plain))
