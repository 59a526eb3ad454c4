"""What a student answers: the part of its turn that is graded. Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.errors import DataError
from rlt.formats.parse import parse_assistant_turn, parse_native
from rlt.formats.tags import TAG_STYLES, Tag
from rlt.formats.turns import TurnStyle


@dataclass(frozen=True)
class Answer:
    """The answer in a student's turn."""

    text: str
    is_whole_turn: bool
    """There is no solution: the whole turn is used as one."""
    is_well_formed: bool
    """The turn is a thought and a solution in their tags, and nothing else."""
    is_unfinished: bool
    """A thought was opened, by the turn or by its prompt, and never closed."""


def read_answer(turn: str, style: TurnStyle) -> Answer:
    """Return what is graded: the last solution block, or what follows the thought, or else the whole turn.

    A turn may be written in another built-in style than the run's, or in the model's own form. Of a thought
    that the prompt has opened nothing is graded: an answer in it is a guess.
    """
    is_well_formed = _is_well_formed(turn, style)
    rest = turn
    if style.prompt_opens:
        _, closed, rest = turn.partition(style.thought.close)
        if not closed:
            return Answer(turn.strip(), True, False, True)
    thought, solution = _tags_of(rest, style)
    if solution.open and solution.open in rest:
        text = rest.rpartition(solution.open)[2].partition(solution.close)[0]
        return Answer(text.strip(), False, is_well_formed, False)
    if style.prompt_opens or thought.close in rest:
        return Answer(rest.rpartition(thought.close)[2].strip(), False, is_well_formed, False)
    whole = turn.strip().removeprefix(style.lead).strip()
    return Answer(whole, True, is_well_formed, thought.open in turn)


def _tags_of(turn: str, style: TurnStyle) -> tuple[Tag, Tag]:
    """Return the tags around thought and solution that a turn is written in."""
    nothing = Tag("", "")
    own = (style.thought, nothing if style.is_bare else style.tags.solution)
    others = [(other.thought, other.solution) for other in TAG_STYLES.values()]
    return next((pair for pair in (own, *others, (style.native, nothing)) if pair[0].open in turn), own)


def _is_well_formed(turn: str, style: TurnStyle) -> bool:
    try:
        if style.is_bare or style.prompt_opens:
            parse_native(turn, style)
        else:
            parse_assistant_turn(turn.strip().removeprefix(style.lead), style.tags)
    except DataError:
        return False
    return True
