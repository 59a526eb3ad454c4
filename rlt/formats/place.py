"""Where a student's sampled tokens are in the sequence of a teacher that knows the solution.

In the teacher's layout the student's thought takes the place of the explanation:

Student: question | <thought> t </thought> <solution> s' </solution>
Teacher: question | <solution> s </solution> <explanation> t </explanation>

What opens the thought is not in the teacher's text, and its answer is not either: the teacher has read the
solution already. The end is: what closes a thought corresponds to what closes an explanation. With the
solution in the question, the student's whole completion follows as it is.

Both sides are token ids, and chunks of them correspond: one token each where the ids are the same, else runs
of tokens that cover the same text (alignment.py). No models, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Protocol

from rlt.formats.alignment import Ends, common_chunks, ends_of, text_and_ends
from rlt.formats.cut import Cut
from rlt.formats.encode import Piece, TokenBytes, encode
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import PADDING
from rlt.records import Problem

_SLOTS = re.compile(r"\{question\}|\{solution\}")
Chunk = tuple[slice, slice]
"""Tokens of the completion, and the tokens of the teacher's sequence that correspond to them."""


@dataclass(frozen=True)
class Place:
    """A completion in the teacher's sequence."""

    ids: list[int]
    """The teacher's sequence, as far as it is needed."""
    chunks: list[Chunk]
    """In order, without overlap. Tokens of the completion in none of them have no counterpart."""

    def tokens(self) -> list[tuple[int, int]]:
        """Return the chunks of one token on either side: (place in the completion, place in `ids`)."""
        return [(a.start, b.start) for a, b in self.chunks if a.stop - a.start == b.stop - b.start == 1]


class Places(Protocol):
    """Puts completions into the sequences of one teacher."""

    renamed: tuple[int, int] | None
    """(teacher's, student's) id of single tokens that mean the same."""

    def __call__(self, problem: Problem, completion_ids: Sequence[int]) -> Place:
        """Return a completion's place."""
        ...

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Return what the teacher reads before a completion."""
        ...


@dataclass(frozen=True)
class Thought:
    """A thought in the ids of a completion: consecutive runs of tokens."""

    text: slice
    """The thought, closing padding included."""
    closing: slice
    """What closes it; empty where it is not closed, or not by tokens of its own."""
    control: slice
    """The control token that ends the turn inside of the thought; empty where there is none."""


class ThoughtFinder:
    """Finds the thought in a student's sampled ids."""

    def __init__(self, layout: StudentLayout, *, is_opened: bool = False) -> None:
        """`is_opened`: the prompt holds the opening, whether or not the chat template writes it."""
        self._is_opened = is_opened or layout.style.prompt_opens
        self._style, opening = layout.style, layout.form.opening
        self._turn = Cut(layout.tokenizer, None, within=layout.style.literal)
        self._bytes = TokenBytes(layout.tokenizer)
        self._num_ids = _num_ids(layout)
        self._padding = len(opening) - len(opening.rstrip())

    def __call__(self, completion_ids: Sequence[int]) -> Thought | None:
        """Return the thought; None where the completion does not begin with one by tokens of its own."""
        pieces = [self._bytes(i) for i in self._turn(completion_ids).token_ids]
        text, ends = b"".join(pieces), [0, *accumulate(map(len, pieces))]
        start = 0 if self._is_opened else self._start(text, ends)
        if start is None:
            return None
        close = self._style.thought.close.encode()
        at = text.find(close, ends[start])
        if at < 0:
            stop = len(pieces)
            has_control = stop < len(completion_ids) and completion_ids[stop] < self._num_ids
            return Thought(slice(start, stop), slice(stop, stop), slice(stop, stop + has_control))
        stop = max(i for i, end in enumerate(ends) if end <= at)
        after = next(i for i, end in enumerate(ends) if end >= at + len(close))
        is_exact = ends[stop] == at
        return Thought(slice(start, stop), slice(stop, after if is_exact else stop), slice(stop, stop))

    def _start(self, text: bytes, ends: list[int]) -> int | None:
        """Return the first token of the thought, after the opening tag and the padding of the layout."""
        tag, lead = self._style.thought.open.encode(), self._style.lead.encode()
        at = text.find(tag)
        if at < 0 or text[:at].strip() not in (b"", lead):
            return None
        inside = at + len(tag)
        first = next(i for i, end in enumerate(ends) if end >= inside)
        if text[inside : ends[first]].strip():
            return None  # one token holds the end of the tag and some of the thought
        for later in range(first + 1, len(ends)):
            if ends[later] > inside + self._padding or text[inside : ends[later]].strip():
                break
            first = later
        return first


class ExplanationPlaces:
    """Puts a student's thought in the place of the teacher's explanation."""

    def __init__(
        self, teacher: TeacherLayout, student: StudentLayout, *, same_ids: bool, is_opened: bool = False
    ) -> None:
        """`same_ids`: all of the student's ids mean the same text with the teacher.

        `is_opened`: see `ThoughtFinder`.
        """
        self._teacher = teacher
        self._find = ThoughtFinder(student, is_opened=is_opened)
        self._student_bytes, self._teacher_bytes = (
            TokenBytes(student.tokenizer),
            TokenBytes(teacher.tokenizer),
        )
        self._same_ids = same_ids
        self._exact_end = same_ids and student.form.padding == PADDING
        self._closing_ids = _tag_ids(teacher, teacher.tags.explanation.close)
        own = _tag_ids(student, student.style.thought.close)
        self.renamed: tuple[int, int] | None = None
        """(teacher's, student's) id of what closes, where each is a single token: they mean the same."""
        if self._exact_end and len(own) == len(self._closing_ids) == 1 and own != self._closing_ids:
            self.renamed = self._closing_ids[0], own[0]
        self.ends_by_a_token = self._exact_end and (
            self.renamed is not None or own[0] == self._closing_ids[0]
        )
        """Whether a thought ends by a token that is one of the explanation's end, or means the same."""

    def __call__(self, problem: Problem, completion_ids: Sequence[int]) -> Place:
        """Return the place of a completion's thought; without one nothing of it has a place."""
        thought = self._find(completion_ids)
        prompt = self._teacher.prompt_ids(problem)
        if thought is None:
            return Place(prompt, [])
        is_closed = thought.closing.stop > thought.closing.start
        if self._same_ids and (self._exact_end or not is_closed):
            return self._same_tokens(prompt, completion_ids, thought)
        return self._same_text(prompt, completion_ids, thought, is_closed=is_closed)

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Return what the teacher reads before the thought."""
        return self._teacher.prompt_ids(problem)

    def _same_tokens(self, prompt: list[int], ids: Sequence[int], thought: Thought) -> Place:
        """Return a place token by token.

        Of the closing tags that tokenizers cut into several tokens, those count in which both begin alike:
        with them each side decides to end. The rest of either tag is certain then.
        """
        text, closing, control = (list(ids[run]) for run in (thought.text, thought.closing, thought.control))
        pairs = zip(closing, self._closing_ids, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        own = [*text, *closing[:common], *control]
        chunks = _one_by_one(thought.text.start, len(prompt), len(own))
        if common or not closing:
            return Place([*prompt, *own], chunks)
        end = len(prompt) + len(own)
        chunks.append((thought.closing, slice(end, end + len(self._closing_ids))))
        return Place([*prompt, *own, *self._closing_ids], chunks)

    def _same_text(
        self, prompt: list[int], ids: Sequence[int], thought: Thought, *, is_closed: bool
    ) -> Place:
        """Return a place over common boundaries of text.

        The last of a closed text, its padding and the closing tag are one chunk: the two layouts, or the two
        tokenizers, write them in other tokens. A control token has no counterpart.
        """
        text, ends = text_and_ends([self._student_bytes(i) for i in ids[thought.text]])
        body, padding = (text.rstrip(), PADDING) if is_closed else (text, "")
        encoded = encode(self._teacher.tokenizer, [Piece(body + padding)])
        theirs = ends_of(encoded, [self._teacher_bytes(i) for i in encoded.ids], body + padding)
        if is_closed:
            ends, theirs = _before(ends, body), _before(theirs, body)
        found = common_chunks(ends, theirs)
        chunks = [(_moved(a, thought.text.start), _moved(b, len(prompt))) for a, b in found]
        if not is_closed:
            return Place([*prompt, *encoded.ids], chunks)
        own, their = chunks.pop()
        end = len(prompt) + len(encoded.ids) + len(self._closing_ids)
        chunks.append((slice(own.start, thought.closing.stop), slice(their.start, end)))
        return Place([*prompt, *encoded.ids, *self._closing_ids], chunks)


class QuestionPlaces:
    """Puts a student's whole completion after a question that brings the solution."""

    renamed: tuple[int, int] | None = None

    def __init__(self, student: StudentLayout, text: str) -> None:
        """`text` holds {question} and {solution}."""
        self._student = student
        self._text = text
        self._num_ids = _num_ids(student)

    def __call__(self, problem: Problem, completion_ids: Sequence[int]) -> Place:
        """Return the place of a completion."""
        prompt = self.prompt_ids(problem)
        known = list(takewhile(lambda token: token < self._num_ids, completion_ids))
        return Place([*prompt, *known], _one_by_one(0, len(prompt), len(known)))

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Return what the teacher is asked with."""
        values = {"{question}": problem.question.strip(), "{solution}": problem.solution.strip()}
        question = _SLOTS.sub(lambda found: values[found[0]], self._text)
        return self._student.prompt_ids(replace(problem, question=question))


def _tag_ids(layout: TeacherLayout | StudentLayout, tag: str) -> list[int]:
    return encode(layout.tokenizer, [Piece(tag, trusted=True)]).ids


def _num_ids(layout: StudentLayout) -> int:
    """Return how many ids are tokens; a table of embeddings may have more rows, which can be sampled."""
    return max(layout.tokenizer.get_vocab().values()) + 1


def _one_by_one(start: int, offset: int, count: int) -> list[Chunk]:
    return [(slice(start + i, start + i + 1), slice(offset + i, offset + i + 1)) for i in range(count)]


def _moved(run: slice, by: int) -> slice:
    return slice(run.start + by, run.stop + by)


def _before(ends: Ends, body: str) -> Ends:
    """Return the ends that lie inside of a text, so that its last token is in the chunk of the end."""
    size = len(body.encode())
    return [end if end is not None and end < size else None for end in ends]
