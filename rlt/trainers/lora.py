"""LoRA as an option of every stage."""

from __future__ import annotations

from typing import Any

from rlt.config.schema import LoraSettings
from rlt.errors import ConfigError


def lora_config(lora: LoraSettings) -> Any:
    """Return peft's configuration, or None when the rank is 0 (all weights are trained)."""
    if lora.rank == 0:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError("model.lora.rank > 0 needs peft: pip install peft") from error
    modules = lora.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules[0] if modules == ["all-linear"] else list(modules),
    )
