"""Which attention a model is loaded with, and why. Pure: no torch, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rlt.config.attention import FLASH, needs_gpu, not_provided
from rlt.errors import ModelError


@dataclass(frozen=True)
class Abilities:
    """What a model's code in transformers can do, and whether attention kernels can run here."""

    name: str = "the model"
    flash: bool = True
    sdpa: bool = True
    flash_kernels: tuple[str, ...] | None = None
    """The only ones that its code takes: transformers would put the first of them in the place of another."""
    softcapping: bool = False
    """Scores are capped (Gemma 2). transformers' SDPA leaves that out without a word; the others do it."""
    gpu_problem: str | None = None
    """Why a GPU kernel cannot run here; None where it can."""


class Attention(NamedTuple):
    """transformers' name of an attention, and why it was taken."""

    implementation: str
    reason: str


def resolve_attention(setting: str, dtype: str, model: Abilities) -> Attention:
    """Return the attention that a setting comes to for a model.

    `auto` is FlashAttention 2 where that is installed and the model can use it, else SDPA, else eager. It is
    never a kernel of the Hub. Raises ModelError for a setting that the model or this machine cannot follow.
    """
    if setting != "auto":
        if reason := _unusable(setting, model):
            raise ModelError(f"`model.attn_implementation={setting}` cannot be used: {reason}")
        return Attention(setting, "as set")
    without_flash = _no_flash(dtype, model)
    if without_flash is None:
        return Attention(FLASH, "auto: flash-attn is installed")
    without_sdpa = _no_sdpa(model)
    if without_sdpa is None:
        return Attention("sdpa", f"auto: {without_flash}")
    return Attention("eager", f"auto: {without_flash}; {without_sdpa}")


def _no_flash(dtype: str, model: Abilities) -> str | None:
    if dtype != "bfloat16":
        return f"the dtype is {dtype}"
    if not_provided(FLASH):
        return "flash-attn is not installed"
    return _no_kernel(FLASH, model) or model.gpu_problem


def _no_kernel(kernel: str, model: Abilities) -> str | None:
    if not model.flash:
        return f"{model.name} does not support FlashAttention"
    if model.flash_kernels is not None and kernel not in model.flash_kernels:
        return f"{model.name} only works with {', '.join(model.flash_kernels)}"
    return None


def _no_sdpa(model: Abilities) -> str | None:
    if model.softcapping:  # first: newer releases of transformers say no more than that SDPA is not supported
        return f"SDPA would ignore the softcapping of {model.name}"
    if not model.sdpa:
        return f"{model.name} does not support SDPA"
    return None


def _unusable(setting: str, model: Abilities) -> str | None:
    if setting == "sdpa":
        return (reason := _no_sdpa(model)) and f"{reason}; take model.attn_implementation=auto"
    if needs_gpu(setting):
        reason = _no_kernel(setting, model) or model.gpu_problem
        return reason and f"{reason}; take model.attn_implementation=auto"
    return None
