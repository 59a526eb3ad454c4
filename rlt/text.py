"""Text for people: tables and durations, what a terminal may be shown, and what must not be written down.

Model output is untrusted: escape sequences, carriage returns or direction overrides in it would repaint the
screen. They are shown by their names instead. Secrets and private paths are taken out of text that is written
down or published; that works on text alone and never reads a credential. A masked value shows as `***`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

Rows = Sequence[Sequence[str]]
_NUMBER = re.compile(r"[-+]?[\d.,]+( %)?( \[[^]]*\]( %)?)?")  # maybe with its interval
GIB = 2**30
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_KEPT = "\n\u200c\u200d"  # line break; joiners that scripts and emoji need
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

# `hub_token=x`, `{api_key: x}`, `--api-key x`, `[--api-key,x]`. The word ends right before the separator, so
# `max_tokens` and `stop_token_ids` stay; `eos_token` and its like name text, not credentials.
_NAMED = re.compile(
    r"(?<![A-Za-z0-9])(?<!eos_)(?<!pad_)(?<!bos_)(?<!unk_)"
    r"(?P<name>api[-_]?key|token|secret|password|passwd|credentials?)"
    r"(?P<separator>[\"']?\s*[=:,]\s*[\"']?|(?<=-key)\s+|(?<=-token)\s+)"
    r"(?!null\b|None\b)[^\s,\]}\"']+",
    re.IGNORECASE,
)
_SHAPED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[a-z]_[A-Za-z0-9]{16,}|[0-9a-f]{40}(?=@))"
)
_IN_ADDRESS = re.compile(r"(://)[^/\s:@]+:[^/\s@]+(@)")
_HOME = re.compile(r"/(?:home|Users)/[^/\s\"',:]+|/root(?=[/\s\"',:]|$)")


def markdown(rows: Rows, *, padded: bool = True) -> str:
    """Return a Markdown table, its head the first row; its columns line up if `padded`, as in a terminal."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in cells)) if padded else 0 for i in range(len(cells[0]))]
    right = [is_right(rows, i) for i in range(len(widths))]
    rule = [f"{'-' * (max(w, 3) - 1)}:" if r else "-" * max(w, 3) for w, r in zip(widths, right, strict=True)]
    lines = [cells[0], rule, *cells[1:]]
    aligned = (
        (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        for line in lines
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in aligned)


def is_right(rows: Rows, column: int) -> bool:
    """Whether every cell below the head is a number."""
    cells = [row[column] for row in rows[1:] if row[column]]
    return bool(cells) and all(map(_NUMBER.fullmatch, cells))


def duration(seconds: float, *, tenths: bool = False) -> str:
    """Return seconds as `45s`, `12m 05s` or `3h 20m`; with `tenths`, what is below ten seconds as `1.5s`."""
    if tenths and seconds < 9.95:
        return f"{seconds:.1f}s"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60:02d}s"
    return f"{total // 3600}h {total % 3600 // 60:02d}m"


def gib(size: float) -> str:
    """Return a number of bytes in GiB, with one decimal and without the unit."""
    return f"{size / GIB:,.1f}"


def timestamp() -> str:
    """Return the time of day as files have it: UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def without_colour(text: str) -> str:
    """Return the text of a terminal without its escape sequences."""
    return _ESCAPE.sub("", text)


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


def redact(text: str) -> str:
    """Return the text with what looks like a secret masked: by name, shape, or place in an address."""
    text = _IN_ADDRESS.sub(r"\1***\2", text)
    text = _SHAPED.sub("***", text)
    return _NAMED.sub(lambda m: f"{m['name']}{m['separator']}***", text)


def without_private_paths(text: str) -> str:
    """Return the text with the working directory written as `.` and home directories as `~`."""
    here, home = str(Path.cwd()), str(Path.home())
    if here != "/":
        text = re.sub(re.escape(here) + r"(?=[/\s\"',:]|$)", ".", text)
    if home != "/":
        text = re.sub(re.escape(home) + r"(?=[/\s\"',:]|$)", "~", text)
    return _HOME.sub("~", text)
