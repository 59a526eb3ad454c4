"""Settings that another setting makes pointless, switched off with one warning each.

The result is what the run uses and saves, so that a saved configuration never claims more than ran.
"""

from __future__ import annotations

import logging
from copy import deepcopy

from rlt.config.schema import Config

logger = logging.getLogger(__name__)


def resolve(config: Config) -> Config:
    """Return a copy in which settings without effect are off."""
    config = deepcopy(config)
    if config.stage != "teacher_rl":
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
    if reward.kl_estimator == "student_nll" and reward.teacher_logprobs != "policy":
        _warn(f"reward.teacher_logprobs={reward.teacher_logprobs}", "kl_estimator=student_nll reads none")
        reward.teacher_logprobs = "policy"
    return config


def _warn(setting: str, reason: str) -> None:
    logger.warning("%s is switched off: %s.", setting, reason)
