"""The columns of a dataset that the public reward reads: what may be in them; errors name row and column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlt.errors import DataError
from rlt.records import Problem, problem_id
from rlt.rewards.writer import Text


def problems_of(questions: Sequence[Any], solutions: Sequence[Any], where: str = "") -> list[Problem]:
    """Return the problems of two columns; `where` follows the row's number in errors."""
    same_length(question=questions, solution=solutions)
    for name, values in (("question", questions), ("solution", solutions)):
        for row, value in enumerate(values):
            require_text(value, name, f"row {row}{where}")
    return [Problem(problem_id(q, s), q, s) for q, s in zip(questions, solutions, strict=True)]


def require_text(value: Any, column: str, where: str) -> None:
    """Raise DataError unless a value is text that is not blank."""
    if isinstance(value, str) and value.strip():
        return
    if isinstance(value, str):
        what, remedy = "is empty", "remove the row, or fill it"
    elif value is None:
        what, remedy = "is None", "remove the row, or fill it"
    else:
        what, remedy = f"is {value!r:.40}, a {type(value).__name__}", "write it as text, with str()"
    raise DataError(f"{where}, column `{column}`: the value {what}, and the reward reads text: {remedy}")


def same_length(**lists: Sequence[Any]) -> None:
    """Raise DataError for lists of different lengths."""
    if len({len(values) for values in lists.values()}) > 1:
        found = ", ".join(f"{len(values)} in `{name}`" for name, values in lists.items())
        raise DataError(f"the rows do not match: there are {found}; give one of each for every row")


def column(name: str, columns: Mapping[str, Any]) -> list[Any]:
    """Return a column that TRL has handed over; DataError where the dataset has none."""
    if name not in columns:
        have = ", ".join(sorted(k for k, v in columns.items() if isinstance(v, list))) or "none"
        raise DataError(
            f"the dataset has no column `{name}`, which the reward reads (it has: {have}): add it"
        )
    return columns[name]


def questions_of(prompts: Sequence[Text], columns: Mapping[str, Any]) -> list[Any]:
    """Return the questions; for messages, the last user turn replaces a missing column."""
    if "question" in columns or not prompts or isinstance(prompts[0], str):
        return column("question", columns)
    return [last_turn(prompt, "user") for prompt in prompts]


def content_of(completion: Text) -> str:
    """Return the text of a completion."""
    return completion if isinstance(completion, str) else last_turn(completion, "assistant")


def last_turn(messages: Text, role: str) -> str:
    """Return the content of the last turn of a role; DataError where there is none."""
    found = [m["content"] for m in messages if isinstance(m, dict) and m["role"] == role]
    if not found:
        raise DataError(f"a chat without a turn of the role {role} cannot be scored: {messages!r:.80}")
    return found[-1]
