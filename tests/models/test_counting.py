"""Sizes counted without weights, against real tiny models, their caches, and numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from rlt.models.counting import count_size
from rlt.models.size import ModelSize
from rlt.models.tiny import tiny_like

FAMILIES = (
    *("afmoe", "apertus", "cohere2", "deepseek_v3", "ernie4_5", "exaone4", "gemma", "gemma2"),
    *("gemma3", "gemma3_text", "gemma4_text", "glm4", "glm4_moe", "gpt2", "gpt_neox", "gpt_oss", "granite"),
    *("granitemoe", "lfm2", "llama", "mistral", "mixtral", "olmo2", "olmo3", "phi", "phi3"),
    *("gemma4", "qwen2", "qwen3", "qwen3_5", "qwen3_moe", "qwen3_next", "smollm3", "starcoder2"),
)
TOKENS = 64


def counted(config) -> ModelSize:
    return count_size(config, config.model_type)


def held(values) -> int:
    """Return the numbers in nested tensors, counters left out."""
    if isinstance(values, torch.Tensor):
        return values.numel() if values.dim() > 1 else 0
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return sum(map(held, inner))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_counts_are_those_of_a_real_model(family):
    """Before: all but llama, mistral, qwen2 and qwen3 had no forecast."""
    model = tiny_like(AutoConfig.for_model(family), family)
    size = counted(model.config)
    model.set_attn_implementation("eager")  # torch does not count its fused kernel for CPUs
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    with FlopCounterMode(display=False) as counter:
        output = model(input_ids=torch.arange(3, 3 + TOKENS).unsqueeze(0), use_cache=True)
    cache = output.past_key_values
    kept = sum(held(vars(layer)) for layer in cache.layers)
    assert size.kv_bytes(1, TOKENS) == kept
    operations = size.forward_flops(TOKENS, context=TOKENS)
    assert operations == pytest.approx(counter.get_total_flops(), rel=0.02)
