"""Ask a frozen student for its log-probabilities: the only code in `rewards` that runs it.

The student's sequence is prefix ids + the explanation's ids + suffix ids, so every span is known; one forward
pass per sequence gives both the solution's and the explanation's log-probabilities. A student with the
teacher's tokenizer reads the very ids that the teacher sampled. Another one reads their text in tokens of its
own, and the two are compared over the finest chunks of text on which both tokenisations agree.

S solution tokens; T explanation tokens, or chunks for a student with another tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlt.formats.alignment import Ends, common_chunks, ends_of, text_and_ends
from rlt.formats.encode import Piece, TokenBytes, encode
from rlt.formats.layout import StudentLayout, Suffix
from rlt.formats.tags import PADDING
from rlt.models.logprobs import LogprobModel, Request
from rlt.records import Explanation, Problem
from rlt.rewards.formula import RewardInputs


@dataclass(frozen=True)
class Reading:
    """An explanation as the student reads it."""

    ids: list[int]
    chunks: list[tuple[slice, slice]] | None
    """Runs of (teacher's, student's) tokens that cover the same text; None where the tokens are the same."""


FrameKey = tuple[str, str, str | None]
"""What the text around an explanation depends on."""


def _frame_key(problem: Problem) -> FrameKey:
    return problem.question, problem.solution, problem.system


class StudentScorer:
    """One student's view of explanations that are given as the teacher's token ids.

    `teacher_bytes` (of the teacher's tokenizer) is given for a student with another tokenizer. `agree` (the
    maximum of an integer over all ranks) matters for a ZeRO-3 sharded student only. With `reads_turns` an
    explanation is the student's own turn up to the end of its thought, with what opens it.
    """

    def __init__(
        self,
        student: LogprobModel,
        layout: StudentLayout,
        *,
        temperature: float,
        tokens_per_batch: int,
        teacher_bytes: TokenBytes | None = None,
        agree: Callable[[int], int] = lambda count: count,
        reads_turns: bool = False,
    ) -> None:
        self.student = student
        self.layout = layout
        self._temperature = temperature
        self._tokens_per_batch = tokens_per_batch
        self._teacher_bytes = teacher_bytes
        self.own_bytes = TokenBytes(layout.tokenizer)
        self._agree = agree
        self._reads_turns = reads_turns
        self._before = layout.prompt_ids if reads_turns else layout.prefix_ids
        self._kept: dict[FrameKey, Tensor] = {}
        self._kept_version: Hashable = None

    def measure(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
        *,
        runs: Sequence[int] | None = None,
        baseline: bool = False,
    ) -> list[RewardInputs]:
        """Return what the reward of each explanation is made from.

        `teacher_logprobs[i]` holds log p_T of explanation i's tokens, one value per token id. `runs`:
        see `token_logprobs`. `baseline`: each problem's solution is read after an empty explanation, too.
        """
        readings = [self._read(explanation) for explanation in explanations]
        logprobs = self._ask(self._requests(problems, readings, self._before), runs)
        without = self._baselines(problems, runs) if baseline else [None] * len(readings)
        items = []
        for explanation, reading, student, alone, teacher in zip(
            explanations, readings, logprobs, without, teacher_logprobs, strict=True
        ):
            num_teacher, num_student = len(explanation.token_ids), len(reading.ids)
            assert teacher is None or len(teacher) == num_teacher, "one teacher value per explanation token"
            own = student[:num_student]
            if reading.chunks is not None and teacher is not None:
                teacher = _sums(teacher, [ours for ours, _ in reading.chunks])
                own = _sums(own, [theirs for _, theirs in reading.chunks])
            items.append(
                RewardInputs(
                    solution_logprobs_S=student[num_student:],
                    student_logprobs_T=own,
                    teacher_logprobs_T=teacher,
                    explanation_tokens=num_teacher,
                    has_end_tag=explanation.has_end_tag,
                    text_after_end_tag=explanation.text_after_end_tag,
                    baseline_logprobs_S=alone,
                )
            )
        return items

    def _baselines(self, problems: Sequence[Problem], runs: Sequence[int] | None) -> list[Tensor]:
        """Return log p_S of each problem's solution after an empty explanation, read once per problem.

        Every process asks once per call, also where it has nothing left to ask: a sharded student runs as
        many passes on each (see `token_logprobs`). Under `runs` a problem has a pass of its own, so that its
        value does not depend on what else is asked; it is kept for as long as the student stays as it is.
        """
        keys = [_frame_key(problem) for problem in problems]
        version = self.student.version
        if self._kept_version != version:
            self._kept, self._kept_version = {}, version
        known = {} if runs is None else self._kept
        new = {key: p for key, p in zip(keys, problems, strict=True) if key not in known}
        alone = None if runs is None else [1] * len(new)
        empty = self._requests(list(new.values()), [Reading([], None)] * len(new), self.layout.prefix_ids)
        found = self._ask(empty, alone)
        known.update(zip(new, found, strict=True))
        return [known[key] for key in keys]

    def _ask(self, requests: list[Request], runs: Sequence[int] | None) -> Sequence[Tensor]:
        return self.student.logprobs(
            requests,
            temperature=self._temperature,
            tokens_per_batch=self._tokens_per_batch,
            runs=runs,
            agree=self._agree,
        )

    def lengths(self, problems: Sequence[Problem], explanations: Sequence[Explanation]) -> list[int]:
        """Return the tokens that the student reads for each explanation."""
        readings = [self._read(explanation) for explanation in explanations]
        return [len(request.ids) for request in self._requests(problems, readings, self._before)]

    def pieces(self, explanation: Explanation, *, by_chunk: bool) -> list[bytes]:
        """Return the bytes of each token that the student reads, or of each chunk shared with the teacher."""
        reading = self._read(explanation)
        tokens = [self.own_bytes(i) for i in reading.ids]
        if reading.chunks is None or not by_chunk:
            return tokens
        return [b"".join(tokens[run]) for _, run in reading.chunks]

    def answer_prompt(self, problem: Problem, explanation: Explanation) -> list[int]:
        """Return the ids after which the student answers by itself: up to the opening solution tag."""
        layout = self.layout
        return [*layout.prefix_ids(problem), *self._read(explanation).ids, *layout.opening_ids()]

    def _read(self, explanation: Explanation) -> Reading:
        ids, padding = list(explanation.token_ids), self.layout.form.padding
        if self._reads_turns:
            return Reading(ids, None)
        if padding != PADDING:
            return self._read_padded(ids, padding)
        if self._teacher_bytes is None:
            return Reading(ids, None)
        text, ends = text_and_ends([self._teacher_bytes(i) for i in ids])
        encoded = encode(self.layout.tokenizer, [Piece(text)])
        own_ends = ends_of(encoded, [self.own_bytes(i) for i in encoded.ids], text)
        return Reading(encoded.ids, common_chunks(ends, own_ends))

    def _read_padded(self, ids: list[int], padding: str) -> Reading:
        """Return an explanation that ends as the student's own thoughts do (layout.tags=native).

        The teacher ends it with the blank line of its own tags, often inside of the last token (`.\n\n`). The
        student reads its own padding there: the end of the text and what follows it, on either side, are one
        chunk, the last.
        """
        if not ids:
            return Reading([], None)
        bytes_of = self._teacher_bytes or self.own_bytes
        text, ends = text_and_ends([bytes_of(i) for i in ids])
        body = text.rstrip()
        size = len(body.encode())
        inside: Ends = [end if end is not None and end < size else None for end in ends]
        if self._teacher_bytes is None:
            keep = max((i + 1 for i, end in enumerate(inside) if end), default=0)
            start = inside[keep - 1] or 0 if keep else 0
            rest = encode(self.layout.tokenizer, [Piece(body.encode()[start:].decode() + padding)]).ids
            chunks = [(slice(i, i + 1), slice(i, i + 1)) for i in range(keep)]
            own = [*ids[:keep], *rest]
            return Reading(own, [*chunks, (slice(keep, len(ids)), slice(keep, len(own)))])
        encoded = encode(self.layout.tokenizer, [Piece(body + padding)])
        own_ends = ends_of(encoded, [self.own_bytes(i) for i in encoded.ids], body + padding)
        own_inside: Ends = [end if end is not None and end < size else None for end in own_ends]
        return Reading(encoded.ids, common_chunks(inside, own_inside))

    def _requests(
        self,
        problems: Sequence[Problem],
        readings: Sequence[Reading],
        before: Callable[[Problem], list[int]],
    ) -> list[Request]:
        """Return one scoring request per explanation; a problem of a group is encoded once."""
        frames: dict[FrameKey, tuple[list[int], Suffix]] = {}
        requests = []
        for problem, reading in zip(problems, readings, strict=True):
            key = _frame_key(problem)
            if key not in frames:
                frames[key] = before(problem), self.layout.suffix(problem)
            prefix, suffix = frames[key]
            requests.append(_request(prefix, reading.ids, suffix))
        return requests


def _request(prefix: list[int], explanation: Sequence[int], suffix: Suffix) -> Request:
    """Return the student's sequence; it requests the explanation's tokens, then the solution's."""
    start = len(prefix)
    end = start + len(explanation)
    solution = range(end + suffix.solution.start, end + suffix.solution.stop)
    return Request([*prefix, *explanation, *suffix.ids], [*range(start, end), *solution])


def _sums(values_T: Tensor, runs: Sequence[slice]) -> Tensor:
    """Return the sum of each run in float64, shape (number of runs,)."""
    values_T = values_T.double()
    return torch.stack([values_T[run].sum() for run in runs]) if runs else values_T[:0]
