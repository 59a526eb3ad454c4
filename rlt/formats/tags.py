"""Tags around the parts of a text, and the blank lines that keep tokens from merging across them.

Tags are ordinary text, not special tokens. Every content is between two blank-line paddings
inside its tags, so no token spans a tag and its content (method section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

PADDING = "\n\n"
"""Inside a tag pair, before and after the content; also between two tagged blocks."""


@dataclass(frozen=True)
class Tag:
    """An opening and a closing string."""

    open: str
    close: str

    def wrap(self, content: str) -> str:
        """Return the content, stripped of outer white space, between padding and tags."""
        return f"{self.open}{PADDING}{content.strip()}{PADDING}{self.close}"


@dataclass(frozen=True)
class TagStyle:
    """The three tag pairs of a layout."""

    name: str
    thought: Tag
    solution: Tag
    explanation: Tag

    @property
    def is_native(self) -> bool:
        """Whether a student's thought and answer have the form that its own chat template gives them."""
        return self.name == "native"

    @property
    def strings(self) -> tuple[str, ...]:
        """All six tag strings."""
        return tuple(s for t in (self.thought, self.solution, self.explanation) for s in (t.open, t.close))


def _bespoke(name: str) -> Tag:
    return Tag(f"<|begin_of_{name}|>", f"<|end_of_{name}|>")


def _xml(name: str) -> Tag:
    return Tag(f"<{name}>", f"</{name}>")


TAG_STYLES = {
    "bespoke": TagStyle("bespoke", _bespoke("thought"), _bespoke("solution"), _bespoke("explanation")),
    "r1": TagStyle("r1", _xml("think"), _xml("solution"), _xml("explanation")),
}
NATIVE = TagStyle("native", _xml("think"), _bespoke("solution"), _bespoke("explanation"))
"""The teacher's tags beside a student's native form (turns.py), and that form in data: `<think> … </think>`
and a bare answer, whichever model it is for."""
TAG_NAMES = (*TAG_STYLES, NATIVE.name)
"""Values of `layout.tags`."""
TAG_STRINGS = frozenset(string for style in TAG_STYLES.values() for string in style.strings)
"""The tags of all styles."""


def tag_style(name: str) -> TagStyle:
    """Return the style that `layout.tags` names."""
    return NATIVE if name == NATIVE.name else TAG_STYLES[name]
