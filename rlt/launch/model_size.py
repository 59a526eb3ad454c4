"""Where a model's size is read from: its folder, the Hub's cache, or a table of published ones. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from rlt.models.size import ModelSize, NoForecast, size_of

_QWEN_7B = ModelSize(3584, 18944, 28, 28, 4, 128, 152064, tied=False, qkv_bias=True)
_QWEN_32B = ModelSize(5120, 27648, 64, 40, 8, 128, 152064, tied=False, qkv_bias=True)
PUBLISHED = {
    "Qwen/Qwen2.5-3B-Instruct": ModelSize(2048, 11008, 36, 16, 2, 128, 151936, tied=True, qkv_bias=True),
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-32B-Instruct": _QWEN_32B,
    "bespokelabs/Bespoke-Stratos-7B": _QWEN_7B,
    "bespokelabs/Bespoke-Stratos-32B": _QWEN_32B,
    "SakanaAI/RLT-7B": _QWEN_7B,
    "SakanaAI/RLT-32B": _QWEN_32B,
}
"""Models of the recipes that may not be on this machine: from the config.json of Qwen2.5 on the Hub; those of
bespokelabs and SakanaAI are fine-tuned from Qwen2.5-7B/32B-Instruct and keep their shape."""


def read_size(model: str) -> ModelSize:
    """Return the size of a model in a folder, in the Hub's cache, or in the table; raises NoForecast."""
    path = Path(model) / "config.json"
    if not path.is_file() and model in PUBLISHED:
        return PUBLISHED[model]
    if not path.is_file():
        path = _cached_config(model)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoForecast(f"{path} cannot be read ({error})") from None
    return size_of(values, model)


def _cached_config(model: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise NoForecast(f"{model} is not on this machine, and its size is not in rlt/launch/model_size.py")
    return Path(found)
