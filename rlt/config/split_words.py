"""Values that the shell has cut at their spaces: `kl_penalty_reward_coeff=[0, 0]` arrives as two words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlt.config.tree import find
from rlt.errors import ConfigError

_CLOSE = {"[": "]", "{": "}"}


def refuse_split(words: Sequence[str]) -> None:
    """Raise ConfigError for a list or a mapping whose end is in a later word, or nowhere."""
    for i, word in enumerate(words):
        key, equals, value = word.partition("=")
        row = find(key.lstrip("+~"))
        if not equals or row is None or (row.is_text and row.name == key.lstrip("+~")) or not _open(value):
            continue
        for j in range(i + 1, len(words)):
            if not _open(" ".join([value, *words[i + 1 : j + 1]])):
                whole = " ".join(words[i : j + 1])
                raise ConfigError(
                    f"`{word}` on the command line is cut, because the shell ends a word at a space: type "
                    f"'{whole}' in quotes, or {whole.replace(' ', '')} without spaces."
                )
        end = "".join(reversed([_CLOSE[sign] for sign in _open(value)]))
        raise ConfigError(
            f"`{word}` on the command line lacks a closing `{end}`: type '{word}{end}' in quotes."
        )


def belongs_before(word: str, before: str | None) -> str:
    """Return a hint, in brackets, where a word may be the rest of the value before it; else nothing."""
    key, equals, _ = (before or "").partition("=")
    if not equals or find(key.lstrip("+~")) is None:
        return ""
    return f" (if it belongs to the value before it, put both in quotes: '{before} {word}')"


def _open(text: str) -> str:
    """Return the brackets that are opened and not closed, outside of quotes."""
    opened: list[str] = []
    quote = None
    for sign in re.sub(r"\\.", "", text):  # a sign behind a backslash is neither
        if quote or sign in "'\"":
            quote = None if sign == quote else quote or sign
        elif sign in _CLOSE:
            opened.append(sign)
        elif opened and sign == _CLOSE[opened[-1]]:
            opened.pop()
    return "".join(opened)
