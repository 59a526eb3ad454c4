"""What the forecast of memory and time assumes of the hardware."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting

GPU_KINDS = (
    *("h100-80g", "h200-141g", "b200-180g", "a100-80g", "a100-40g"),
    *("l40s-48g", "rtx-4090-24g", "rtx-3090-24g"),
)
"""Kinds that rlt/surroundings/gpus.py knows."""


@dataclass
class HardwareSettings:
    """What the launchers' forecast of memory and time takes for granted; training reads none of it."""

    gpu: str = setting(
        "auto",
        "kind of GPU to forecast for; auto asks nvidia-smi, and takes h100-80g where there is none",
        choices=("auto", *GPU_KINDS),
    )
    mean_prompt_tokens: int | None = setting(
        None,
        "mean tokens of a prompt (SFT: of the text before the answer); null: a sixteenth of the limit",
        gt=0,
    )
    mean_completion_tokens: int | None = setting(
        None, "mean tokens of a completion (SFT: of an answer); null: a quarter of the limit", gt=0
    )
