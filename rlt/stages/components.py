"""The further components of a reward, made from the configuration; none in the released recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from accelerate import Accelerator

from rlt.config.schema import AnswerSettings, Config
from rlt.config.server_key import find_key
from rlt.errors import GenerationError
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import StudentLayout
from rlt.generation.collective import on_every_process
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Generator, Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.models.frozen import FrozenModel
from rlt.records import Problem
from rlt.rewards.components.answers import AnswerReader, CorrectAnswers
from rlt.rewards.components.composite import CompositeReward, WeightedComponent
from rlt.rewards.components.copying import CopyPenalty
from rlt.rewards.components.functions import RewardFunction
from rlt.rewards.components.length import LengthPenalty
from rlt.rewards.likelihood import Reward
from rlt.rewards.scorer import StudentScorer
from rlt.tasks.graders import GRADERS


@dataclass(frozen=True)
class OutsideParts:
    """What components need from outside of this program; made before any model is loaded."""

    functions: Sequence[tuple[RewardFunction, float]]
    """The user's functions with their weights."""
    answer_pool: VLLMPool | None
    """Servers of the student that answers."""


def load_functions(config: Config) -> list[tuple[RewardFunction, float]]:
    """Import the user's functions; return them with their weights."""
    return [(RewardFunction(f.path), f.weight) for f in config.reward.functions if f.weight]


def load_outside_parts(config: Config, *, is_main: bool) -> OutsideParts:
    """Import the user's functions, and on the main process see that the student's servers answer."""
    functions = load_functions(config)
    answers = config.reward.answers
    pool = None
    if answers.weight and answers.servers:
        key = find_key(config.generation.api_key_file)
        pool = VLLMPool(answers.servers, timeout=config.generation.request_timeout, key=key)
        if is_main:
            _check_pool(pool, config)
    return OutsideParts(functions, pool)


def check_columns(functions: Sequence[tuple[RewardFunction, float]], problems: Sequence[Problem]) -> None:
    """Raise DataError for a column that a function reads and no problem has."""
    for function, _ in functions:
        function.check_columns(problems)


def _check_pool(pool: VLLMPool, config: Config) -> None:
    pool.show_health()
    if not config.generation.allow_open_servers:
        pool.check_doors()
    try:
        pool.check(config.student_model)
    except GenerationError as error:
        raise GenerationError(
            f"{error}; `reward.answers.servers` has to name running servers of student_model="
            f"{config.student_model}: start them, or remove it and the student answers in this process"
        ) from error


def with_components(
    likelihood: Reward,
    scorer: StudentScorer,
    *,
    teacher_bytes: TokenBytes,
    outside: OutsideParts,
    accelerator: Accelerator,
    config: Config,
) -> Reward:
    """Return the reward with the components that have a weight; the reward itself when none has."""
    length, copy, answers = config.reward.length, config.reward.copy, config.reward.answers
    components = [WeightedComponent(function, weight) for function, weight in outside.functions]
    if length.weight:
        components.append(
            WeightedComponent(LengthPenalty(length.min_tokens, length.max_tokens), length.weight)
        )
    if copy.weight:
        components.append(WeightedComponent(CopyPenalty(copy.n), copy.weight))
    if answers.weight:
        correct = correct_answers(scorer, _generator(scorer, outside.answer_pool, config), config)
        components.append(WeightedComponent(correct, answers.weight))
    if not components:
        return likelihood
    everywhere = partial(on_every_process, accelerator)
    return CompositeReward(likelihood, components, teacher_bytes, everywhere=everywhere)


def correct_answers(scorer: StudentScorer, generator: Generator, config: Config) -> CorrectAnswers:
    """Return the component that lets the student of a scorer answer through a generator."""
    answers, layout = config.reward.answers, scorer.layout
    close = None if layout.style.is_bare else layout.tags.solution.close
    sampling = Sampling(
        temperature=answers.temperature,
        max_tokens=answers.max_tokens,
        stop_token_ids=tuple(layout.stop_token_ids),
        stop_strings=(close,) if close else (),
    )
    return CorrectAnswers(
        scorer.answer_prompt,
        lambda prompts, seeds: generator.generate(prompts, answers.num_samples, sampling, seeds),
        AnswerReader(scorer.own_bytes, close, frozenset(layout.stop_token_ids)),
        GRADERS[answers.grader](answers.grading_seconds),
        seed=config.seed,
    )


def answer_room(layout: StudentLayout, answers: AnswerSettings) -> int:
    """Return the tokens that an answer takes after an explanation; 0 where none is asked for."""
    return len(layout.opening_ids()) + answers.max_tokens if answers.weight else 0


def _generator(scorer: StudentScorer, pool: VLLMPool | None, config: Config) -> Generator:
    if pool is not None:
        return pool
    student, tokenizer = cast(FrozenModel, scorer.student), scorer.layout.tokenizer
    assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer has seen to a pad token"
    return TransformersGenerator(
        student.in_place,
        tokenizer.pad_token_id,
        config.per_device_train_batch_size,
        decode=lambda ids: str(tokenizer.decode(ids)),
    )
