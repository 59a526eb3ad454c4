"""The turns of a conversation -> question, thought and solution.

A thought is in the reply's tags, under a key of its own (`reasoning_content`, as servers send it), or in
a part of its own where the content is a list of typed parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlt.data.values import written_text
from rlt.errors import DataError
from rlt.formats.parse import parse_assistant_turn
from rlt.formats.tags import TAG_STYLES, TagStyle

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
THOUGHT_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a turn, and types of its parts, that hold a thought."""


@dataclass(frozen=True)
class Conversation:
    """What one question and its answer say."""

    system: str | None
    question: str
    thought: str
    solution: str


@dataclass(frozen=True)
class _Turn:
    role: str
    text: str
    thought: str | None
    """The thought if it is separate from the text, else None."""
    key: str | None
    """The key that holds it."""


def read_turns(turns: Any, label: str, tags: TagStyle, match: str = "once") -> Conversation:
    """Return what [system,] user and assistant turns say, in either spelling: {from, value} or
    {role, content}. `match` is data.tag_match."""
    if turns is None:
        raise DataError(f"{label} is missing")
    if not isinstance(turns, list):
        raise DataError(f"{label} must be a list of turns, got {type(turns).__name__}")
    spoken = [_read_turn(turn, f"turn {i}") for i, turn in enumerate(turns, start=1)]
    roles = [turn.role for turn in spoken]
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        shown = ", ".join(roles[:6]) or "none"
        raise DataError(f"{label} must have one user and one assistant turn, got the turns {shown}")
    question, reply = spoken[-2], spoken[-1]
    if not question.text.strip():
        raise DataError(f"the user turn of {label} is empty")
    system = spoken[0].text if len(spoken) == 3 and spoken[0].text.strip() else None
    return Conversation(system, question.text, *_thought_and_solution(reply, tags, match))


def _thought_and_solution(reply: _Turn, tags: TagStyle, match: str) -> tuple[str, str]:
    if reply.thought is None:
        return parse_assistant_turn(reply.text, tags, match)
    if any(reply.text.lstrip().startswith(style.thought.open) for style in (tags, *TAG_STYLES.values())):
        raise DataError(f"the assistant turn has a thought in `{reply.key}` and in its tags, must be one")
    if not reply.text.strip():
        raise DataError("the assistant turn has an empty solution")
    return reply.thought.strip(), reply.text.strip()


def _read_turn(turn: Any, label: str) -> _Turn:
    if not isinstance(turn, dict):
        raise DataError(f"{label} must be an object, got {type(turn).__name__}")
    speaker, field = ("from", "value") if turn.get("from") is not None else ("role", "content")
    if turn.get(speaker) is None or turn.get(field) is None:
        raise DataError(f"{label} must have from and value, or role and content, got {', '.join(turn)}")
    role = ROLES.get(written_text(turn[speaker], f"the {speaker!r} of {label}"))
    if role is None:
        raise DataError(f"{label} is from {turn[speaker]!r}, must be one of {', '.join(ROLES)}")
    text, thoughts = _read_content(turn[field], f"the {field!r} of {label}")
    for key in THOUGHT_KEYS:
        if turn.get(key) is not None:
            thoughts[key] = written_text(turn[key], f"the {key!r} of {label}")
    if len(thoughts) > 1:
        raise DataError(f"{label} has several thoughts: {', '.join(thoughts)}; must be one")
    key, thought = next(iter(thoughts.items()), (None, None))
    return _Turn(role, text, thought, key)


def _read_content(content: Any, label: str) -> tuple[str, dict[str, str]]:
    """Return the text of a turn, and the thought of its parts by their type."""
    if not isinstance(content, list):
        return written_text(content, label), {}
    texts: list[str] = []
    thoughts: dict[str, str] = {}
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", *THOUGHT_KEYS):
            raise DataError(f"{label} has a part of type {kind!r}, must be text or thinking")
        text = written_text(part.get(kind, part.get("text")), f"a part of {label}")
        if kind == "text":
            texts.append(text)
        else:
            thoughts[kind] = thoughts.get(kind, "") + text
    return "".join(texts), thoughts
