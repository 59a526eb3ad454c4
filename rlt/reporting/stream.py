"""Sampled tokens on their way to a terminal: text as it comes, with headings in place of tags."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import TextIO

from rlt.text import printable


class TextStream:
    """Writes the text of tokens at once.

    `headings` maps each tag to the heading that replaces it, or to nothing; the white space around a tag
    goes with it. Held back is only what may yet become a tag, white space, and half a character.

    Example: `stream = TextStream(sys.stdout, token_bytes, {"<think>": "Thought", "</think>": ""})`, then
    `stream.write(token_id)` for each token and `stream.close()`.
    """

    def __init__(self, out: TextIO, token_bytes: Callable[[int], bytes], headings: Mapping[str, str]) -> None:
        self._out = out
        self._token_bytes = token_bytes
        self._headings = headings
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_terminal = out.isatty()
        self._held = ""
        self._has_text = False
        """Something is in the current part: its first white space is dropped."""
        self._is_first = True

    def write(self, token_id: int) -> None:
        """Write the text of one more token."""
        self._add(self._decoder.decode(self._token_bytes(token_id)))

    def head(self, heading: str) -> None:
        """Start a part of the text under a heading."""
        self._emit(f"{'' if self._is_first else chr(10) * 2}{heading}\n\n")
        self._has_text = False

    def close(self) -> None:
        """Write what was held back, and end the line."""
        self._add(self._decoder.decode(b"", final=True))
        self._text(self._held.rstrip())
        self._held = ""
        self._emit("\n")

    def _add(self, text: str) -> None:
        self._held += text
        while found := self._first_tag():
            before, self._held = self._held.split(found, 1)
            self._text(before.rstrip())
            self._held = self._held.lstrip()
            self._has_text = False
            if heading := self._headings[found]:
                self.head(heading)
        keep = self._num_held()
        self._text(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _first_tag(self) -> str | None:
        present = [tag for tag in self._headings if tag in self._held]
        return min(present, key=self._held.index, default=None)

    def _num_held(self) -> int:
        """Return how many of the last characters may belong to a tag, with the white space before them."""
        longest = max(map(len, self._headings), default=0)
        lengths = range(min(longest, len(self._held)), 0, -1)
        part = next((n for n in lengths if any(t.startswith(self._held[-n:]) for t in self._headings)), 0)
        before = self._held[: len(self._held) - part]
        return part + len(before) - len(before.rstrip())

    def _text(self, text: str) -> None:
        text = text if self._has_text else text.lstrip()
        if text:
            self._has_text = True
            self._emit(printable(text) if self._is_terminal else text)

    def _emit(self, text: str) -> None:
        self._is_first = False
        self._out.write(text)
        self._out.flush()
