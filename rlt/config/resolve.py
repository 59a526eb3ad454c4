"""What a configuration comes to: `~` spelled out, pointless settings switched off with one warning each.

The result is what the run uses and saves, so that a saved configuration never claims more than ran.
"""

from __future__ import annotations

import logging
import os
from copy import deepcopy

from rlt.config.files import has_checkpoint
from rlt.config.prompts import source_file, with_home
from rlt.config.rules.benchmarks import plain_task
from rlt.config.schema import PROMPT_KEYWORDS, Config, stage_of
from rlt.config.tree import get

logger = logging.getLogger(__name__)

_PATHS = (
    *("model_name_or_path", "dataset_id_or_path", "student_model", "teacher_model", "evaluation.path"),
    *("results_dir", "output_dir", "resume_from", "generation.sync_dir", "collect.only"),
    "generation.api_key_file",
)
_WRITTEN = ("results_dir", "output_dir", "resume_from", "generation.sync_dir", "generation.api_key_file")
"""Of these, the places that a run writes to or resumes from, and the key, which is no input."""


def resolve(config: Config) -> Config:
    """Return a copy with whole paths, in which settings without effect are off."""
    config = deepcopy(config)
    _expand_home(config)
    if config.report_to is not None and config.report_to.lower() == "none":
        config.report_to = None
    if config.resume_from == "auto":
        config.resume_from = "latest" if has_checkpoint(config.output_dir) else None
    stage = stage_of(config)
    if stage.only_scores:
        _choose_estimator(config)
    for asking in (config.evaluate, config.evaluation.benchmarks):
        asking.tasks = [plain_task(task) for task in asking.tasks]
    if not stage.is_rl:
        return config
    trainer, reward = config.trainer, config.reward
    if trainer.ref_sync_steps and trainer.beta == 0:
        _warn(f"trainer.ref_sync_steps={trainer.ref_sync_steps}", "trainer.beta=0 uses no reference model")
        trainer.ref_sync_steps = 0
    if trainer.ref_sync_steps and config.model.lora.rank:
        _warn(
            f"trainer.ref_sync_steps={trainer.ref_sync_steps}",
            "with model.lora.rank > 0 the reference is the model without its adapters, which cannot move",
        )
        trainer.ref_sync_steps = 0
    if stage.scores and reward.kl_estimator == "student_nll" and reward.teacher_logprobs != "policy":
        _warn(
            f"reward.teacher_logprobs={reward.teacher_logprobs}", "reward.kl_estimator=student_nll reads none"
        )
        reward.teacher_logprobs = "policy"
    return config


def input_paths(config: Config) -> dict[str, str]:
    """Return what a configuration reads, a path or a Hub name, by the setting that names it."""
    found = {name: get(config, name) for name in _PATHS if name not in _WRITTEN}
    found |= {f"traces.more.{i}": path for i, path in enumerate(config.traces.more)}
    found |= {f"evaluate.paths.{task}": path for task, path in config.evaluate.paths.items()}
    found |= {f"reward.students.{s.name}.model": s.model for s in config.reward.students}
    return {**{name: path for name, path in found.items() if path}, **prompt_files(config)}


def prompt_files(config: Config) -> dict[str, str]:
    """Return the files and datasets that system prompts are read from, by setting."""
    prompts = {f"layout.{name}": getattr(config.layout, name) for name in PROMPT_KEYWORDS}
    prompts |= {f"reward.students.{s.name}.prompt": s.prompt or "" for s in config.reward.students}
    return {name: file for name, text in prompts.items() if (file := source_file(text))}


def _choose_estimator(config: Config) -> None:
    """Without a teacher, or with a divergence that counts for nothing, the student alone is asked."""
    estimator = config.reward.kl_estimator
    reason = None
    if not any(config.kl_penalty_reward_coeff):
        reason = "kl_penalty_reward_coeff has no weight, so r_KL is 0"
    elif config.model_name_or_path is None:
        reason = "no teacher is given, so the divergence is the student's own surprise, -log p_S"
    if reason and estimator != "student_nll":
        logger.info("reward.kl_estimator=%s becomes student_nll: %s.", estimator, reason)
        config.reward.kl_estimator = "student_nll"
    if config.reward.kl_estimator == "student_nll" and config.model_name_or_path is not None:
        _warn(f"model_name_or_path={config.model_name_or_path}", "the divergence reads no teacher")
        config.model_name_or_path = None


def _expand_home(config: Config) -> None:
    for name in _PATHS:
        section, _, leaf = name.rpartition(".")
        if path := get(config, name):
            setattr(get(config, section) if section else config, leaf, os.path.expanduser(path))
    config.evaluate.paths = {t: os.path.expanduser(path) for t, path in config.evaluate.paths.items()}
    config.traces.more = [os.path.expanduser(path) for path in config.traces.more]
    for name in PROMPT_KEYWORDS:
        setattr(config.layout, name, with_home(getattr(config.layout, name)))
    for student in config.reward.students:
        student.model = os.path.expanduser(student.model)
        student.prompt = student.prompt and with_home(student.prompt)


def _warn(setting: str, reason: str) -> None:
    logger.warning("%s is switched off: %s.", setting, reason)
