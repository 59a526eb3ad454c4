"""The weights of a trained model, one full tensor at a time, under their names in the model without adapters.

Under ZeRO-3 each tensor is gathered alone, so no process ever holds the whole model. LoRA deltas are added
on the way, so nothing is merged into the trained weights. Checkpoints may have other names: names.py.
Not supported: FSDP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlt.models.gather import gathered


def model_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, full tensor) of every parameter; a tied `lm_head.weight` is not repeated.

    Under ZeRO-3 this is a collective: every process has to run through all of it. A tensor is
    valid until the next one is asked for; who keeps it, copies it.
    """
    adapted = {
        id(module.get_base_layer().weight): module
        for module in cast(Iterator[Any], model.modules())
        if hasattr(module, "get_delta_weight") and hasattr(module, "get_base_layer")
    }
    for name, parameter in own_parameters(model):
        layer: Any = adapted.get(id(parameter))
        parts = [parameter] if layer is None else [parameter, *_adapter_parameters(layer)]
        with torch.no_grad(), gathered(parts):
            full = parameter.data
            if layer is not None:
                for adapter in layer.active_adapters:
                    full = full + layer.get_delta_weight(adapter).to(full.dtype)
            yield name, full


def own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a model that PEFT may have wrapped, under their own names; no adapters."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name and ".original_module." not in name:
            yield plain_name(name), parameter


def plain_name(parameter_name: str) -> str:
    """Return the name of a parameter in the model that PEFT has wrapped."""
    name = parameter_name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return name.replace(".modules_to_save.default.", ".")


def _adapter_parameters(layer: Any) -> list[nn.Parameter]:
    """Return the low-rank factors of a LoRA layer."""
    return [p for name, p in layer.named_parameters() if "lora_" in name]
