"""What each model of a stage does to its logits, found on a tiny one of its family before any is loaded."""

from __future__ import annotations

import logging

from rlt.config.attention import loaded_models
from rlt.config.schema import Config, stage_of
from rlt.models.family import check_logprobs, tiny_of
from rlt.trainers.lora import lora_config
from rlt.trainers.own_loss import check_loss

logger = logging.getLogger(__name__)


def check_heads(config: Config) -> None:
    """Raise ModelError for a model whose log-probabilities or loss are not those of its own forward.

    A model that cannot be made tiny is looked at once its weights are loaded.
    """
    stage = stage_of(config)
    if not (stage.trains or stage.scores):
        return
    trust = config.model.trust_remote_code
    for name, revision in dict.fromkeys((model.name, model.revision) for model in loaded_models(config)):
        tiny = tiny_of(name, revision=revision, trust=trust)
        if tiny is None:
            continue
        check_logprobs(tiny, name)
        if stage.trains and name == config.model_name_or_path:
            check_loss(tiny, name, lora_config(config.model.lora))
