"""What `model.attn_implementation` comes to for each model of a stage, before any is loaded."""

from __future__ import annotations

import logging

from rlt.config.attention import loaded_models
from rlt.config.files import is_here
from rlt.config.schema import Config
from rlt.errors import ModelError
from rlt.models.attention import resolve_attention
from rlt.models.load import abilities_of, attention_of, load_config

logger = logging.getLogger(__name__)


def settle_attention(config: Config) -> None:
    """Log the attention of each model that this stage loads; raises ModelError where a model cannot have it.

    transformers would say so when it loads the model: in RL after the servers have loaded theirs.
    """
    models = dict.fromkeys(loaded_models(config))
    if not models:
        return
    setting, trust = config.model.attn_implementation, config.model.trust_remote_code
    for model in models:
        if _can_be_read(model.name, model.revision, trust):
            found = attention_of(model.name, setting, model.dtype, revision=model.revision, trust=trust)
            logger.info("attention of %s: %s (%s)", model.name, *found)


def check_attention(config: Config) -> None:
    """Do the same for models on this machine, in a run that may be meant for another one's GPUs; load no
    kernel."""
    setting, trust = config.model.attn_implementation, config.model.trust_remote_code
    for model in dict.fromkeys(loaded_models(config)):
        if is_here(model.name) and _can_be_read(model.name, model.revision, trust):
            abilities = abilities_of(load_config(model.name, revision=model.revision, trust=trust))
            found = resolve_attention(setting, model.dtype, abilities)
            logger.info("attention of %s on GPUs: %s (%s)", model.name, *found)


def policy_attention(config: Config) -> str:
    """Return transformers' name of the attention that TRL loads the policy with."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    model = config.model
    how = {"revision": model.revision, "trust": model.trust_remote_code}
    return attention_of(
        config.model_name_or_path, model.attn_implementation, model.dtype, **how
    ).implementation


def _can_be_read(name: str, revision: str | None, trust: bool) -> bool:
    """Whether a model's configuration is there. If it is not, the stage says so in its own words."""
    try:
        load_config(name, revision=revision, trust=trust)
    except ModelError:
        return False
    return True
