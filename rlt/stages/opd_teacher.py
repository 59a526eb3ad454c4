"""The teacher of on-policy distillation, built from the configuration: its text first, then its weights."""

from __future__ import annotations

import logging

from rlt.config.schema import Config
from rlt.config.server_key import find_key
from rlt.config.teacher import teacher_name, teacher_revision
from rlt.errors import ConfigError
from rlt.formats.compare import compare_tokenizers
from rlt.formats.layout import StudentLayout
from rlt.formats.place import ExplanationPlaces, Places, QuestionPlaces
from rlt.formats.tags import tag_style
from rlt.generation.server_logprobs import ServerLogprobs
from rlt.models.frozen import load_frozen
from rlt.models.load import load_context, load_tokenizer
from rlt.models.plain import PlainModel
from rlt.stages.common import is_main_process
from rlt.stages.layouts import teacher_layout
from rlt.stages.student_check import (
    NUM_COMPARED,
    Frame,
    Processes,
    Served,
    Sharded,
    StudentCheck,
    Texts,
    texts,
    verify_servers,
    verify_sharded,
)
from rlt.trainers.opd_teacher import FrozenTeacher, PolicyTeacher, ServerTeacher, Teacher
from rlt.trainers.reference import MovingReference
from rlt.trainers.student_opd import StudentOPDTrainer

logger = logging.getLogger(__name__)
AVERAGE = "teacher"
"""The folder of a checkpoint that holds the student's moving average."""


def weights_of_teacher(config: Config) -> str:
    """Return the model that the teacher's tokenizer and first weights come from."""
    name = teacher_name(config) or config.model_name_or_path
    assert name is not None, "validate() has asked for it"
    return name


def read_places(config: Config, student: StudentLayout) -> tuple[Places, int]:
    """Return where completions are in the teacher's sequence, and how many tokens both models have."""
    name, revision = weights_of_teacher(config), teacher_revision(config)
    tokenizer = load_tokenizer(name, revision=revision, trust=config.model.trust_remote_code)
    found = compare_tokenizers(student.tokenizer, tokenizer, tag_style(config.layout.tags))
    if not found.same_ids:
        _refuse_other_tokenizer(config)
        logger.info(
            "teacher %s has another tokenizer: both models are compared over common boundaries of text",
            name,
        )
    vocabulary = min(max(t.get_vocab().values()) + 1 for t in (student.tokenizer, tokenizer))
    if config.opd.solution_in == "question":
        return QuestionPlaces(student, config.opd.question), vocabulary
    teacher = teacher_layout(config, tokenizer, name, revision)
    same, opened = found.same_ids, opens_thought(config)
    places = ExplanationPlaces(teacher, student, same_ids=same, is_opened=opened)
    if config.opd.support != "sampled" and not places.ends_by_a_token:
        ends = f"{student.style.thought.close!r} and {teacher.tags.explanation.close!r}"
        raise ConfigError(
            f"`opd.support={config.opd.support}` compares the two models token by token, and a thought ends "
            f"in other tokens than an explanation ({ends} under layout.tags={config.layout.tags}): the "
            "student would not learn when to stop. Take opd.support=sampled, which compares the ends as a "
            "whole, or opd.solution_in=question."
        )
    return places, vocabulary


def opens_thought(config: Config) -> bool:
    """Whether the student's prompts open its thought."""
    return config.opd.open_thought and config.opd.solution_in == "explanation"


def _refuse_other_tokenizer(config: Config) -> None:
    """Raise ConfigError where a teacher with tokens of its own cannot judge the student's."""
    opd, other = config.opd, f"teacher_model={config.teacher_model} has another tokenizer than the student"
    if opd.support != "sampled":
        raise ConfigError(
            f"`opd.support={opd.support}` compares the two models token by token of one vocabulary, and "
            f"{other}: take opd.support=sampled, which compares them over common boundaries of text."
        )
    if opd.solution_in == "question":
        raise ConfigError(
            f"`opd.solution_in=question` hands the teacher the student's own tokens, and {other}: take "
            "opd.solution_in=explanation."
        )


def teacher_context(config: Config) -> int | None:
    """Return how many tokens the teacher reads, None where that is not known.

    Raises GenerationError for a server that does not answer, or not at the sampling temperature.
    """
    name, trust = weights_of_teacher(config), config.model.trust_remote_code
    contexts = [load_context(name, revision=teacher_revision(config), trust=trust)]
    if is_served(config):
        servers = teacher_servers(config)
        if is_main_process():
            servers.show_health()
        if not config.generation.allow_open_servers:
            servers.check_doors()
        contexts.append(servers.check(config.temperature))
        servers.close()
    return min((context for context in contexts if context is not None), default=None)


def is_served(config: Config) -> bool:
    """Whether the teacher is behind servers."""
    return config.opd.teacher == "model" and config.opd.placement == "server"


def teacher_servers(config: Config) -> ServerLogprobs:
    """Return the teacher behind the configured servers."""
    generation = config.generation
    key = find_key(generation.api_key_file)
    return ServerLogprobs(config.opd.servers, timeout=generation.request_timeout, key=key)


def make_teacher(
    trainer: StudentOPDTrainer, *, places: Places, check: StudentCheck, config: Config
) -> Teacher:
    """Return the teacher, placed as configured; one that is sharded has been compared with a plain load."""
    opd, name = config.opd, teacher_name(config)
    if name is None:
        return PolicyTeacher(trainer)
    if opd.placement == "server":
        return ServerTeacher(
            teacher_servers(config),
            temperature=config.temperature,
            tokens_per_batch=opd.tokens_per_batch,
        )
    model = load_frozen(
        name,
        placement=opd.placement,
        dtype=opd.dtype,
        attn_implementation=config.model.attn_implementation,
        accelerator=trainer.accelerator,
        revision=teacher_revision(config),
        trust=config.model.trust_remote_code,
        setting="opd.placement",
    )
    agree = trainer.max_over_processes
    if opd.verify_server:
        plain = PlainModel(name, opd.dtype, teacher_revision(config), config.model.trust_remote_code)
        asked = teacher_texts(config, places, check)
        how = ("teacher", model, plain, asked, config.temperature, opd.tokens_per_batch)
        verify_sharded(Sharded(*how, placement="opd.placement"), check, Processes(trainer.accelerator, agree))
    return FrozenTeacher(
        model,
        temperature=config.temperature,
        tokens_per_batch=opd.tokens_per_batch,
        agree=agree,
    )


def teacher_texts(config: Config, places: Places, check: StudentCheck) -> Texts:
    """Return texts of the teacher; the long one is as long as any that it will read."""
    frames: list[Frame] = [(places.prompt_ids(p), ()) for p in check.problems[:NUM_COMPARED]]
    longest = len(frames[-1][0]) + check.explanation_tokens
    name, trust = weights_of_teacher(config), config.model.trust_remote_code
    context = load_context(name, revision=teacher_revision(config), trust=trust)
    longest = longest if context is None else min(longest, context)
    return texts(frames, longest, map(places.prompt_ids, check.problems))


def verify_teacher_servers(config: Config, places: Places, check: StudentCheck) -> None:
    """Raise GenerationError unless the teacher's servers score as it does in a plain load."""
    name, opd = weights_of_teacher(config), config.opd
    plain = PlainModel(name, opd.dtype, trust=config.model.trust_remote_code)
    asked = teacher_texts(config, places, check)
    how = ("teacher", teacher_servers(config), plain, asked, config.temperature, opd.tokens_per_batch)
    verify_servers(Served(*how), check)


def make_average(trainer: StudentOPDTrainer, *, config: Config) -> MovingReference:
    """Return what moves the teacher towards the student."""
    assert isinstance(trainer.teacher, FrozenTeacher), "it has weights of its own"
    return MovingReference(
        trainer.policy,
        trainer.teacher.model.module,
        trainer.accelerator,
        every=config.opd.ema_steps,
        share=config.opd.ema_share,
        folder=AVERAGE,
    )
