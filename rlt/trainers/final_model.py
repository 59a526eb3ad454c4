"""Write the trained model at the top of the run directory, ready for `from_pretrained` and for vLLM.

The weights leave the trainer tensor by tensor: gathered one at a time under ZeRO-3, with LoRA merged in.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from rlt.data.model_layout import ModelLayout, write_layout
from rlt.errors import CheckpointError
from rlt.generation.checkpoint_sync import MAX_SHARD_BYTES, write_checkpoint
from rlt.generation.collective import consume_on_main_process
from rlt.generation.names import Names
from rlt.generation.weights import model_weights


@dataclass(frozen=True)
class SavedWith:
    """What is saved with a trained model besides weights, configuration and tokenizer."""

    generation: GenerationConfig
    """Its sampling defaults, and the tokens it stops at."""
    layout: ModelLayout
    """What it was trained with; in each checkpoint, too."""


def generation_config(
    tokenizer: PreTrainedTokenizerBase, stop_token_ids: list[int], temperature: float
) -> GenerationConfig:
    """Return a saved model's defaults: plain sampling, and the stop tokens that it was taught."""
    return GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        eos_token_id=stop_token_ids,
        pad_token_id=tokenizer.pad_token_id,
    )


def save_final_model(
    model: Any,
    accelerator: Accelerator,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    layout: ModelLayout,
) -> None:
    """Write weights, configuration, tokenizer and layout into `directory`; every process takes part."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model

    def write(weights: Iterator[tuple[str, Tensor]]) -> None:
        staging = directory / "model.new"
        try:
            shutil.rmtree(staging, ignore_errors=True)
            write_checkpoint(weights, staging, MAX_SHARD_BYTES)
            plain.config.save_pretrained(staging)
            plain.generation_config.save_pretrained(staging)
            tokenizer.save_pretrained(staging)
            write_layout(staging, layout)
            for old in directory.glob("*.safetensors*"):
                old.unlink()
            for file in staging.iterdir():
                file.replace(directory / file.name)
            staging.rmdir()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the trained model cannot be written to {directory} ({error}); make room there and resume "
                "from the last checkpoint"
            ) from error

    consume_on_main_process(accelerator, Names(model)(model_weights(model)), write)
