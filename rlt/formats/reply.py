"""Thought and answer in what a student has sampled. No models, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlt.errors import DataError
from rlt.formats.cut import Cut
from rlt.formats.encode import TokenBytes
from rlt.formats.parse import parse_native, parse_tagged
from rlt.formats.turns import TurnStyle
from rlt.records import Completion


@dataclass(frozen=True)
class Reply:
    """A student's turn, taken apart."""

    thought: str
    """Without outer white space; the whole turn where it is malformed."""
    answer: str | None
    """What is in the solution's tags, or bare after the thought; None where the turn is malformed."""
    thought_tokens: int
    """Sampled tokens that begin in the thought, padding included."""


class ReplyReader:
    """Reads a student's turn: `open thought close open answer close`, ended by the student itself.

    A turn is malformed if a tag is missing, occurs twice or in another order, if there is text outside of the
    tags or an empty answer (see `parse_tagged` and, for thoughts in the model's own form, `parse_native`), or
    if it was cut by its length.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: TurnStyle) -> None:
        self._turn = Cut(tokenizer, None, within=style.literal)
        self._token_bytes = TokenBytes(tokenizer)
        self._style = style

    def __call__(self, completion: Completion) -> Reply:
        """Return the reply in one sample; a control token inside of it ends it, as the end of turn does."""
        pieces = [self._token_bytes(i) for i in self._turn(completion.token_ids).token_ids]
        turn = b"".join(pieces)
        text = turn.decode(errors="replace")
        style, tag = self._style, self._style.thought
        try:
            if style.is_bare or style.prompt_opens:
                thought, answer = parse_native(text, style)
            else:
                thought, answer = parse_tagged(text.strip().removeprefix(style.lead), style.tags)
        except DataError:
            return Reply(text.strip(), None, len(pieces))
        if completion.finish_reason == "length":
            return Reply(text.strip(), None, len(pieces))
        if style.is_bare and style.prompt_empties:
            return Reply(thought, answer, 0)
        start = 0 if style.prompt_opens else turn.index(tag.open.encode()) + len(tag.open.encode())
        return Reply(thought, answer, _num_between(pieces, start, turn.index(tag.close.encode())))


def _num_between(pieces: list[bytes], start: int, end: int) -> int:
    """Return how many pieces begin at a byte from `start` on and before `end`."""
    count = position = 0
    for piece in pieces:
        count += start <= position < end
        position += len(piece)
    return count
