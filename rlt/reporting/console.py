"""Text that is safe and readable in a terminal.

Model output is untrusted: escape sequences, carriage returns or direction overrides in it would repaint the
screen. They are shown by their names instead.
"""

from __future__ import annotations

import unicodedata

_KEPT = "\n\u200c\u200d"  # line break; joiners that scripts and emoji need
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str) -> str:
    """Return the text with tabs as spaces, and control and format characters as visible escapes."""
    text = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


def shorten_middle(text: str, limit: int) -> str:
    """Return at most about `limit` characters of the text: its start and its end, and how much is missing."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    missing = len(text) - head - tail
    return f"{text[:head].rstrip()}\n[… {missing:,} characters …]\n{text[-tail:].lstrip()}"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
