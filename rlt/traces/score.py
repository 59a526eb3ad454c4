"""Score traces: the student-likelihood reward of explanations that exist already, as text.

The ids of an explanation are the teacher's tokenizer's, so that teacher and student score the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from rlt.formats.alignment import text_and_ends
from rlt.formats.cut import Cut, written_explanation
from rlt.formats.encode import Piece, TokenBytes, encode
from rlt.formats.layout import TeacherLayout
from rlt.models.logprobs import LogprobModel, Request
from rlt.records import Explanation, Problem, Trace
from rlt.rewards.likelihood import LikelihoodReward, is_scorable
from rlt.rewards.student import StudentText
from rlt.traces.distance import distances
from rlt.traces.shards import ScoreRow


@dataclass(frozen=True)
class Size:
    """How long a trace is, in tokens."""

    explanation: int
    """Of the teacher's tokenizer."""
    students: tuple[int, ...]
    """Each student's whole sequence."""
    teacher: int
    """The teacher's whole sequence; 0 without one."""

    @property
    def total(self) -> int:
        """What scoring it takes."""
        return sum(self.students) + self.teacher


class TraceReader:
    """Traces as token sequences of a teacher and of students.

    `teacher` lays out the prompt of a frozen teacher. Without one the first student's tokenizer is used for
    the one that wrote the explanations.
    """

    def __init__(self, students: Sequence[StudentText], teacher: TeacherLayout | None) -> None:
        self.students = students
        self.teacher = teacher
        self.tags = students[0].layout.tags
        self._tokenizer = students[0].layout.tokenizer if teacher is None else teacher.tokenizer
        self._as_bytes = TokenBytes(self._tokenizer)
        self._cut = Cut(self._tokenizer, self.tags.explanation.close)
        self._around: dict[tuple[str, str | None], tuple[list[int], int]] = {}

    def explanation(self, text: str) -> Explanation:
        """Return an explanation's ids; a raw sample that still has its end tag ends there."""
        if self.tags.explanation.close in text:
            return self._cut(encode(self._tokenizer, [Piece(text)]).ids)
        return written_explanation(self._tokenizer, text)

    def around(self, problem: Problem) -> tuple[list[int], int]:
        """Return the tokens around an explanation, of students and teacher; DataError where there are none.

        A problem of several traces is encoded once.
        """
        key = (problem.id, problem.system)
        if key not in self._around:
            layouts = [student.layout for student in self.students]
            students = [len(of.prefix_ids(problem)) + len(of.suffix(problem).ids) for of in layouts]
            self._around[key] = students, len(self.teacher.prompt_ids(problem)) if self.teacher else 0
        return self._around[key]

    def size(self, trace: Trace) -> Size:
        """Return how long a trace is; nothing where it has no explanation."""
        if trace.explanation is None:
            return Size(0, (0,) * len(self.students), 0)
        around, teacher = self.around(trace.problem)
        ids = self.explanation(trace.explanation).token_ids
        text, _ = text_and_ends([self._as_bytes(i) for i in ids])
        own = []
        for student in self.students:
            reads_ids = student.teacher_bytes is None
            own.append(len(ids) if reads_ids else len(encode(student.layout.tokenizer, [Piece(text)]).ids))
        whole = tuple(a + b for a, b in zip(around, own, strict=True))
        return Size(len(ids), whole, teacher + len(ids) if self.teacher else 0)


@dataclass(frozen=True)
class FrozenTeacher:
    """The teacher whose log-probabilities count in r_KL, at its sampling temperature."""

    model: LogprobModel
    layout: TeacherLayout
    temperature: float
    tokens_per_batch: int
    agree: Callable[[int], int]

    def logprobs(self, problems: Sequence[Problem], explanations: Sequence[Explanation]) -> list[Tensor]:
        """Return log p_T of each explanation's tokens. Collective where the teacher is sharded."""
        requests = []
        for problem, explanation in zip(problems, explanations, strict=True):
            prompt = self.layout.prompt_ids(problem)
            ids = [*prompt, *explanation.token_ids]
            requests.append(Request(ids, range(len(prompt), len(ids))))
        return self.model.logprobs(
            requests,
            temperature=self.temperature,
            tokens_per_batch=self.tokens_per_batch,
            agree=self.agree,
        )


class TraceScorer:
    """Scores one shard of traces at a time."""

    def __init__(self, reader: TraceReader, reward: LikelihoodReward, teacher: FrozenTeacher | None) -> None:
        assert teacher is not None or not reward.needs_teacher, "the divergence reads a teacher"
        self._reader = reader
        self.reward = reward
        self._teacher = teacher

    def read(
        self, traces: Sequence[Trace]
    ) -> tuple[list[Problem], list[Explanation], Sequence[Tensor | None]]:
        """Return what the reward scores, with log p_T where there is a teacher; collective as scoring is."""
        problems = [trace.problem for trace in traces]
        explanations = [self._reader.explanation(trace.explanation or "") for trace in traces]
        if self._teacher is None:
            return problems, explanations, [None] * len(traces)
        return problems, explanations, self._teacher.logprobs(problems, explanations)

    def __call__(self, traces: Sequence[Trace], why: Sequence[str | None]) -> list[ScoreRow]:
        """Return a row for each trace: its key, `score`, `breakdown`, and `why` there is no score.

        `breakdown` also holds how far student_model is from the trace (distance.py).

        `why[i]` says why trace i is not to be scored, or is None. Collective where a model is sharded: every
        process comes here, with nothing where it has nothing.
        """
        scorable = [trace for trace, reason in zip(traces, why, strict=True) if reason is None]
        problems, explanations, teacher = self.read(scorable)
        measured = self.reward.measure(problems, explanations, teacher)
        scores = iter(self.reward.judge(problems, explanations, measured))
        first_students = iter(students[0] for students in measured)
        rows = []
        for trace, reason in zip(traces, why, strict=True):
            row = {"problem_id": trace.problem.id, "sample_index": trace.sample_index}
            score = next(scores) if reason is None else None
            far = distances(next(first_students)) if reason is None else {}
            if score is None or not is_scorable(score):
                reason = reason or "a model gave no finite number"
                rows.append({**row, "score": None, "breakdown": None, "why": reason})
            else:
                parts = {name: value if isfinite(value) else None for name, value in score.parts.items()}
                rows.append({**row, "score": score.reward, "breakdown": {**parts, **far}, "why": None})
        return rows


def why_not(
    trace: Trace, size: Size, student_contexts: Sequence[int | None], teacher_context: int | None
) -> str | None:
    """Return why a trace cannot be scored, or None where it can."""
    if trace.explanation is None:
        return "there is no explanation"
    for who, length, context in (
        *(("student", *of) for of in zip(size.students, student_contexts, strict=True)),
        ("teacher", size.teacher, teacher_context),
    ):
        if context is not None and length > context:
            return f"too long: {length} tokens where the {who}'s context has {context}"
    return None
