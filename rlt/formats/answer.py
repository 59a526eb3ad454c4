"""What a student answers: the part of its turn that is graded. Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.errors import DataError
from rlt.formats.parse import parse_assistant_turn
from rlt.formats.tags import TAG_STYLES, TagStyle


@dataclass(frozen=True)
class Answer:
    """The answer in a student's turn."""

    text: str
    is_whole_turn: bool
    """There is no solution: the whole turn stands for it."""
    is_well_formed: bool
    """The turn is a thought and a solution in their tags, and nothing else."""
    is_unfinished: bool
    """A thought was opened and never closed."""


def read_answer(turn: str, tags: TagStyle) -> Answer:
    """Return what is graded: the last solution block, or what follows the thought, or else the whole turn.

    A turn may be written in another built-in style than the run's.
    """
    style = next((s for s in (tags, *TAG_STYLES.values()) if s.thought.open in turn), tags)
    is_well_formed = _is_well_formed(turn, tags)
    if style.solution.open in turn:
        solution = turn.rpartition(style.solution.open)[2].partition(style.solution.close)[0]
        return Answer(solution.strip(), False, is_well_formed, False)
    if style.thought.close in turn:
        return Answer(turn.rpartition(style.thought.close)[2].strip(), False, is_well_formed, False)
    return Answer(turn.strip(), True, is_well_formed, style.thought.open in turn)


def _is_well_formed(turn: str, tags: TagStyle) -> bool:
    try:
        parse_assistant_turn(turn, tags)
    except DataError:
        return False
    return True
