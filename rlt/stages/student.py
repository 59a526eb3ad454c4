"""The frozen students that pay, built from the configuration for any stage that scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from rlt.config.files import is_here, prompt_is_here
from rlt.config.judges import own_student, pays_likelihood
from rlt.config.schema import Config, stage_of
from rlt.config.students import FIRST, all_students
from rlt.formats.compare import compare_tokenizers
from rlt.formats.encode import TokenBytes
from rlt.formats.tags import tag_style
from rlt.models.gather import rows_of_all
from rlt.models.load import load_tokenizer
from rlt.models.logprobs import LogprobModel
from rlt.rewards.formula import RewardSpec
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer
from rlt.rewards.student import StudentText
from rlt.rundir.run_record import Source
from rlt.stages.layouts import judge_layout
from rlt.stages.student_placement import student_context, student_model

logger = logging.getLogger(__name__)


def student_inputs(config: Config) -> dict[str, Source | None]:
    """Return the models of all students for run.json."""
    if not pays_likelihood(config):
        return {}
    first, *others = all_students(config)
    found: dict[str, Source | None] = {f"student {student.name}": student.model for student in others}
    return {"student": None if own_student(config) else first.model, **found}


def read_students(
    config: Config, teacher: PreTrainedTokenizerBase | None, *, here_alone: bool = False
) -> list[StudentText]:
    """Return the students, student_model first; logs how their tokenizers compare with the teacher's.

    Without a teacher the explanations are in student_model's tokens. `here_alone` skips students that
    are not on this machine.
    """
    tags = tag_style(config.layout.tags)
    students = []
    for settings in all_students(config):
        assert settings.prompt is not None
        if here_alone and not (is_here(settings.model) and prompt_is_here(settings.prompt)):
            continue
        if settings.name == FIRST and own_student(config) and teacher is not None:
            tokenizer = teacher  # the model is the one that writes
        else:
            tokenizer = load_tokenizer(settings.model, trust=config.model.trust_remote_code)
        teacher = teacher or tokenizer
        found = compare_tokenizers(teacher, tokenizer, tags)
        for finding in found.findings if tokenizer is not teacher else ():
            logger.info("%s %s: %s", settings.name, settings.model, finding)
        students.append(
            StudentText(
                settings,
                judge_layout(config, tokenizer, settings),
                None if found.same_ids else TokenBytes(teacher),
                student_context(config, settings.model),
            )
        )
    return students


def student_reward(
    config: Config,
    students: Sequence[StudentText],
    *,
    accelerator: Accelerator,
    agree: Callable[[int], int],
    own: LogprobModel | None = None,
    reads_turns: bool = False,
) -> LikelihoodReward:
    """Return the reward of the students, the frozen ones placed as configured.

    `agree` is the maximum of an integer over all processes. `own` is student_model where that is a model of
    the training itself. `reads_turns`: see `StudentScorer`.
    """
    voices = []
    for student in students:
        assert student.settings.temperature is not None
        if own is not None and student.settings.name == FIRST:
            model = own
        else:
            model = student_model(config, student.settings.model, accelerator)
        scorer = StudentScorer(
            model,
            student.layout,
            temperature=student.settings.temperature,
            tokens_per_batch=config.reward.tokens_per_batch,
            teacher_bytes=student.teacher_bytes,
            agree=agree,
            reads_turns=reads_turns,
        )
        voices.append(WeightedStudent(student.settings.name, scorer, student.settings.weight))
    share = partial(rows_of_all, accelerator)
    if not stage_of(config).scores:
        return LikelihoodReward(voices, RewardSpec.of_solution(config), share=share)
    combine = config.reward.combine
    return LikelihoodReward(voices, RewardSpec.from_config(config), combine=combine, share=share)
