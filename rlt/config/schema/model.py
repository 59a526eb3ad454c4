"""How the trained model is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting


@dataclass
class LoraSettings:
    """Low-rank adapters instead of full fine-tuning; rank 0 is off."""

    rank: int = setting(0, "rank of the adapters; 0 trains all weights", ge=0)
    alpha: int = setting(32, "scale of the adapters (lora_alpha)", gt=0)
    dropout: float = setting(0.0, "dropout on the adapters' input", ge=0, lt=1)
    target_modules: list[str] = setting(["all-linear"], "modules that get adapters")


@dataclass
class ModelSettings:
    """How the trained model is loaded."""

    dtype: str = setting("bfloat16", "dtype of weights and activations", choices=("bfloat16", "float32"))
    attn_implementation: str = setting(
        "auto",
        "attention: eager, sdpa, flash_attention_2 (needs the package flash-attn), or a kernel of the Hub as "
        "kernels-community/flash-attn2 (needs the package kernels, and runs native code of others); auto is "
        "flash_attention_2 where that is installed and a GPU and the model can use it, else sdpa, else eager",
    )
    revision: str | None = setting(None, "branch, tag or commit on the Hub")
    trust_remote_code: bool = setting(False, "run model code that comes with the checkpoint")
    lora: LoraSettings = setting(LoraSettings, "low-rank adapters")
