"""Configurations for forecasts, each run file composed once: composing takes longer than what is tested."""

from copy import deepcopy
from functools import cache

import yaml

from rlt.config.compose import compose
from rlt.config.schema import Config
from rlt.config.tree import get

_composed = cache(lambda run: compose([f"run_cfg={run}", "model.attn_implementation=flash_attention_2"]))


def configured(run: str, *words: str) -> Config:
    """Return the configuration of a run file with FlashAttention, and with KEY=VALUE words on top."""
    config = deepcopy(_composed(run))
    for word in words:
        name, value = word.split("=", 1)
        section, _, leaf = name.rpartition(".")
        value = yaml.safe_load(value)
        owner = get(config, section) if section else config
        if isinstance(owner, dict):
            owner[leaf] = value
        else:
            assert hasattr(owner, leaf), name
            setattr(owner, leaf, value)
    return config
