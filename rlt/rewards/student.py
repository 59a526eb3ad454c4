"""A student as far as it is text: what is known of it before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema import StudentSettings
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import StudentLayout


@dataclass(frozen=True)
class StudentText:
    """How a student reads problems and explanations."""

    settings: StudentSettings
    """With its own temperature and prompt."""
    layout: StudentLayout
    teacher_bytes: TokenBytes | None
    """Of the tokenizer that writes the explanations, for a student that cannot read its ids."""
    context: int | None
    """How many tokens it reads, None where that is not known."""
