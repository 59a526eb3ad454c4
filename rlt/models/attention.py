"""Which attention kernel a model is loaded with. Pure: no torch."""

from __future__ import annotations

from importlib.util import find_spec


def resolve_attention(setting: str, dtype: str, *, on_gpu: bool) -> str:
    """Return transformers' name of the kernel; `auto` is FlashAttention 2 where it can run, else SDPA."""
    if setting != "auto":
        return setting
    flash = on_gpu and dtype == "bfloat16" and find_spec("flash_attn") is not None
    return "flash_attention_2" if flash else "sdpa"
