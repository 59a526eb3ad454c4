"""A frozen model that is sharded or served is compared with a plain load of it before anything is paid.

On a few problems as they are, and on one text as long as any that it will score: a fault of positions shows
only there. A replicated model, also one that rests in host memory, is a plain load itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from rlt.config.schema import Config
from rlt.devices import on_gpu
from rlt.errors import ModelError
from rlt.formats.layout import TeacherLayout
from rlt.generation.collective import on_every_process, on_main_process
from rlt.generation.drift import Drift, engine_drift, rounding_limit
from rlt.generation.server_logprobs import ServerLogprobs
from rlt.models.frozen import FrozenModel
from rlt.models.load import load_context
from rlt.models.logprobs import LogprobModel, Request
from rlt.models.plain import (
    NoPlainLoad,
    PlainModel,
    PlainScores,
    differing_buffers,
    ids_in_a_row,
    score_plainly,
)
from rlt.records import Problem
from rlt.rewards.likelihood import LikelihoodReward
from rlt.rewards.student import StudentText
from rlt.rundir.run_record import RunRecord
from rlt.stages.student_placement import student_servers

logger = logging.getLogger(__name__)

NUM_COMPARED = 4
"""Problems on which a model is compared with its plain load."""
TOKENS_COMPARED = 512
"""Of each of them, at most."""
TOKENS_AT_END = 64
"""Of the long text, the last ones."""


@dataclass(frozen=True)
class StudentCheck:
    """What a run scores, as far as the comparison needs it."""

    problems: Sequence[Problem]
    explanation_tokens: int
    """Of the longest explanation."""
    record: RunRecord

    def note(self, role: str, found: dict[str, Any]) -> None:
        """Write what was measured of a model to run.json."""
        self.record.update(student_check=self.record.fields.get("student_check", {}) | {role: found})


@dataclass(frozen=True)
class Texts:
    """What is scored on both sides."""

    short: list[Request]
    long: Request

    @property
    def where(self) -> str:
        """Return the compared end of the long text, in words."""
        return f"{len(self.long.positions)} tokens after {self.long.positions[0]}"


@dataclass(frozen=True)
class Processes:
    """How the processes of a run work together."""

    accelerator: Accelerator
    agree: Callable[[int], int]
    """The maximum of an integer over all of them."""


@dataclass(frozen=True)
class Sharded:
    """A frozen model whose weights are spread over the processes, and what it is asked to score."""

    role: str
    model: LogprobModel
    plain: PlainModel
    texts: Texts
    temperature: float
    tokens_per_batch: int
    placement: str = "reward.placement"
    """The setting that says where it is."""


@dataclass(frozen=True)
class Served:
    """A frozen model behind servers, and what they are asked to score."""

    role: str
    servers: ServerLogprobs
    plain: PlainModel
    texts: Texts
    temperature: float
    tokens_per_batch: int


Frame = tuple[Sequence[int], Sequence[int]]
"""The ids before and after an explanation."""


def texts(frames: Sequence[Frame], longest: int, filler: Iterable[Sequence[int]]) -> Texts:
    """Return the frames as short texts, and the last one around so much filler that it is `longest` long."""
    short = [[*before, *after][-TOKENS_COMPARED:] for before, after in frames]
    before, after = frames[-1]
    ids = [*before, *ids_in_a_row(filler, max(0, longest - len(before) - len(after))), *after]
    end = range(max(1, len(ids) - TOKENS_AT_END), len(ids))
    return Texts([Request(ids, range(1, len(ids))) for ids in short], Request(ids, end))


def student_texts(student: StudentText, check: StudentCheck) -> Texts:
    """Return a student's texts; the long one is the largest problem around the longest explanation."""
    layout, problems = student.layout, check.problems
    largest = max(problems, key=lambda problem: len(problem.question) + len(problem.solution))
    some = (*problems[:NUM_COMPARED], largest)
    frames: list[Frame] = [(layout.prefix_ids(p), layout.suffix(p).ids) for p in some]
    longest = sum(map(len, frames[-1])) + check.explanation_tokens
    longest = longest if student.context is None else min(longest, student.context)
    return texts(frames, longest, map(layout.prefix_ids, problems))


def verify_student_servers(config: Config, student: StudentText, check: StudentCheck) -> None:
    """Raise GenerationError unless the servers score as the student does in a plain load.

    Only warns where the student's weights are not on this machine or would not fit its memory.
    """
    name, reward = student.settings.model, config.reward
    served = Served(
        student.settings.name,
        student_servers(config),
        PlainModel(name, reward.dtype, trust=config.model.trust_remote_code),
        student_texts(student, check),
        reward.student_temperature,
        reward.tokens_per_batch,
    )
    verify_servers(served, check)


def verify_servers(served: Served, check: StudentCheck) -> None:
    """Raise GenerationError unless servers score as their model does in a plain load; closes them.

    Only warns where its weights are not on this machine or would not fit its memory.
    """
    plain, asked, who = served.plain, served.texts, f"the {served.role}'s servers"
    # Nothing else is on this process's GPU yet.
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = torch.device(gpu if on_gpu() else "cpu")
    logger.info("comparing %s with a plain load of %s", who, plain.name)
    try:
        expected = score_plainly(
            plain,
            [*asked.short, asked.long],
            temperature=served.temperature,
            tokens_per_batch=served.tokens_per_batch,
            device=device,
        ).logprobs
    except NoPlainLoad as error:
        logger.warning("%s are not verified: %s", who, error)
        return
    with closing(served.servers) as servers:
        servers.compare(asked.short, expected[:-1], plain.name, plain.dtype, served.temperature)
        drift = servers.compare_end(asked.long, expected[-1], plain.name, plain.dtype)
    _tell(check, served.role, who, asked, drift)


def verify_sharded_students(
    config: Config,
    students: Sequence[StudentText],
    reward: LikelihoodReward,
    check: StudentCheck,
    processes: Processes,
) -> None:
    """Raise ModelError on every process unless each sharded student scores as its plain load; collective."""
    for student, voice in zip(students, reward.students, strict=True):
        assert student.settings.temperature is not None
        sharded = Sharded(
            student.settings.name,
            voice.scorer.student,
            PlainModel(student.settings.model, config.reward.dtype, trust=config.model.trust_remote_code),
            student_texts(student, check),
            student.settings.temperature,
            config.reward.tokens_per_batch,
        )
        verify_sharded(sharded, check, processes)


def verify_sharded_teacher(
    config: Config, model: LogprobModel, layout: TeacherLayout, check: StudentCheck, processes: Processes
) -> None:
    """Raise ModelError on every process unless a sharded teacher scores as its plain load; collective."""
    name, settings = config.model_name_or_path, config.model
    if not config.reward.verify_server:
        return
    assert name is not None, "the layout is its own"
    frames: list[Frame] = [(layout.prompt_ids(problem), ()) for problem in check.problems[:NUM_COMPARED]]
    longest = len(frames[-1][0]) + check.explanation_tokens
    context = load_context(name, revision=settings.revision, trust=settings.trust_remote_code)
    plain = PlainModel(name, settings.dtype, settings.revision, settings.trust_remote_code)
    longest = longest if context is None else min(longest, context)
    asked = texts(frames, longest, map(layout.prompt_ids, check.problems))
    sharded = Sharded("teacher", model, plain, asked, config.temperature, config.reward.tokens_per_batch)
    verify_sharded(sharded, check, processes)


def verify_sharded(sharded: Sharded, check: StudentCheck, processes: Processes) -> None:
    """Raise ModelError on every process unless a sharded model scores as its plain load does; collective.

    Only warns where there is no room for a plain load. Does nothing for a model that is whole.
    """
    model, asked, accelerator = sharded.model, sharded.texts, processes.accelerator
    if not isinstance(model, FrozenModel) or not model.collective:
        return
    requests = [*asked.short, asked.long]
    how: dict[str, Any] = {
        "temperature": sharded.temperature,
        "tokens_per_batch": sharded.tokens_per_batch,
    }
    ours = model.logprobs(requests, agree=processes.agree, **how)
    if accelerator.is_main_process:
        logger.info("comparing the sharded %s with a plain load of %s", sharded.role, sharded.plain.name)

    def expect() -> PlainScores | str:
        try:
            return score_plainly(sharded.plain, requests, device=accelerator.device, **how)
        except NoPlainLoad as error:
            logger.warning("the sharded %s is not compared with a plain load: %s", sharded.role, error)
            return str(error)

    expected = on_main_process(accelerator, expect)
    if isinstance(expected, str):
        return
    drift = on_every_process(accelerator, partial(_judge, sharded, model, ours, expected))
    if accelerator.is_main_process:
        _tell(check, sharded.role, f"the sharded {sharded.role}", asked, drift)


def _judge(sharded: Sharded, model: FrozenModel, ours: list[Tensor], expected: PlainScores) -> Drift:
    """Return the drift at the end of the long text, or raise if it or that of the short ones is a fault."""
    limit = rounding_limit(sharded.plain.dtype)
    short = _drift(torch.cat(ours[:-1]), torch.cat(expected.logprobs[:-1]))
    end = _drift(ours[-1], expected.logprobs[-1])
    if short.mean <= limit and end.mean <= limit:
        return end
    with model.in_place() as module:
        buffers = differing_buffers(module, expected.buffers)
    why = "it grows with the position: " if short.mean <= limit else ""
    why += buffers[0] if buffers else "it is not computed as `from_pretrained` gives it"
    raise ModelError(
        f"the sharded {sharded.role} {sharded.plain.name} differs by {end.mean:.3g} on average from a plain "
        f"load of it in {sharded.plain.dtype}, in the log-probabilities of {sharded.texts.where} (limit "
        f"{limit:g}), and by {short.mean:.3g} in {short.num_tokens} tokens of short texts; {why}; take "
        f"{sharded.placement}=replicated or cpu_offload"
    )


def _drift(ours_N: Tensor, theirs_N: Tensor) -> Drift:
    return engine_drift(ours_N, theirs_N, torch.ones_like(ours_N))


def _tell(check: StudentCheck, role: str, who: str, asked: Texts, drift: Drift) -> None:
    logger.info(
        "%s: a plain load agrees; log-probabilities of %s differ by %.2g on average",
        *(who, asked.where, drift.mean),
    )
    measured = {"after_tokens": asked.long.positions[0], "mean": drift.mean, "max": drift.max}
    check.note(role, measured)
