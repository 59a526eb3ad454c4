"""What a value of a source means as text: a text unchanged, a number where one may be, or no text."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from rlt.errors import DataError

MISSING = ("nan", "<na>", "nat", "#n/a")
"""What pandas, polars and spreadsheets write for a missing value, in any case."""
DOUBTFUL = ("none", "null", "na", "n/a", "#value!", "#ref!")
"""What may mean a missing value, and may be meant: `None` can be a right answer."""


def text_of(value: Any, label: str) -> str:
    """Return a value that is text which a tokenizer takes; raises DataError for another."""
    if not isinstance(value, str):
        raise DataError(f"{label} must be text, got {type(value).__name__} {str(value)[:40]!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a character, which no tokenizer takes
        raise DataError(f"{label} has half a surrogate pair at character {error.start + 1}") from error
    return value


def written_text(value: Any, label: str) -> str:
    """Return a text that somebody wrote; the mark of a missing value is none."""
    text = text_of(value, label)
    if text.strip().lower() in MISSING:
        raise DataError(
            f"{label} is {text.strip()!r}, which programs write for a missing value: leave it empty, or add "
            "a word if it is meant"
        )
    return text


def number_text(value: Any) -> str | None:
    """Return a finite number as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return None
    return str(value)
