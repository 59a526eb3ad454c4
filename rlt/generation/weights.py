"""The weights of a trained model, one full tensor at a time, under the names of its checkpoint.

Under ZeRO-3 each tensor is gathered alone, so no process ever holds the whole model. LoRA deltas are added
on the way, so nothing is merged into the trained weights. Left out: FSDP, and models whose
checkpoint names differ from their parameters' (mixtures of experts).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlt.models.gather import gathered


def model_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (checkpoint name, full tensor) of every parameter; a tied `lm_head.weight` is not repeated.

    Under ZeRO-3 this is a collective: every process has to run through all of it. A tensor is
    valid until the next one is asked for; who keeps it, copies it.
    """
    adapted = {
        id(module.get_base_layer().weight): module
        for module in cast(Iterator[Any], model.modules())
        if hasattr(module, "get_delta_weight") and hasattr(module, "get_base_layer")
    }
    for name, parameter in model.named_parameters():
        if "lora_" in name or ".original_module." in name:
            continue
        layer: Any = adapted.get(id(parameter))
        parts = [parameter] if layer is None else [parameter, *_adapter_parameters(layer)]
        with torch.no_grad(), gathered(parts):
            full = parameter.data
            if layer is not None:
                for adapter in layer.active_adapters:
                    full = full + layer.get_delta_weight(adapter).to(full.dtype)
            yield checkpoint_name(name), full


def checkpoint_name(parameter_name: str) -> str:
    """Return the name in a plain checkpoint of a parameter that PEFT may have wrapped."""
    name = parameter_name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return name.replace(".modules_to_save.default.", ".")


def _adapter_parameters(layer: Any) -> list[nn.Parameter]:
    """Return the low-rank factors of a LoRA layer."""
    return [p for name, p in layer.named_parameters() if "lora_" in name]
