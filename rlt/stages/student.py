"""The frozen student that pays, built from the configuration for any stage that scores."""

from __future__ import annotations

from collections.abc import Callable

from accelerate import Accelerator

from rlt.config.schema import Config
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import StudentLayout
from rlt.rewards.formula import RewardSpec
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent
from rlt.rewards.scorer import StudentScorer
from rlt.stages.student_placement import student_model


def student_reward(
    config: Config,
    layout: StudentLayout,
    *,
    accelerator: Accelerator,
    agree: Callable[[int], int],
    teacher_bytes: TokenBytes | None = None,
) -> LikelihoodReward:
    """Return the reward of the frozen student, placed as configured.

    `agree` is the maximum of an integer over all processes; `teacher_bytes` is for a student whose tokenizer
    is not the teacher's.
    """
    scorer = StudentScorer(
        student_model(config, accelerator),
        layout,
        temperature=config.reward.student_temperature,
        tokens_per_batch=config.reward.tokens_per_batch,
        teacher_bytes=teacher_bytes,
        agree=agree,
    )
    return LikelihoodReward([WeightedStudent("student", scorer)], RewardSpec.from_config(config))
