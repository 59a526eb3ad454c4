"""Sizes counted without weights, against real tiny models, their caches, and numbers worked out by hand."""

from __future__ import annotations

from functools import cache

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


@cache
def counted(family: str, **fields) -> ModelSize:
    return count_size(AutoConfig.for_model(family, **fields), family)


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
    size = count_size(model.config, family)
    model.set_attn_implementation("eager")  # torch does not count its fused kernel for CPUs
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    with FlopCounterMode(display=False) as counter:
        output = model(input_ids=torch.arange(3, 3 + TOKENS).unsqueeze(0), use_cache=True)
    cache = output.past_key_values
    kept = sum(held(vars(layer)) for layer in cache.layers)
    assert size.kv_bytes(1, TOKENS) == kept
    operations = size.forward_flops(TOKENS, context=TOKENS)
    assert operations == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_published_mixtures():
    """Of models' own papers: gpt-oss-120b (arXiv 2508.10925, table 1), Mixtral 8x7B (arXiv 2401.04088)."""
    size = counted("gpt_oss")
    assert round(size.parameters / 1e9, 2) == 116.83
    assert round(size.active / 1e9, 2) == 5.13
    size = counted("mixtral")
    assert round(size.parameters / 1e9) == 47
    assert round(size.active / 1e9) == 13


def test_keys_and_values_by_hand():
    """Each in bfloat16, at 1,000 and at 10,000 tokens."""
    # plain, SmolLM3-3B: 36 layers x 2 x 4 heads x 128 x 2 bytes = 73,728 a token
    plain = counted("smollm3")
    assert (plain.kv_bytes(2, 1000), plain.kv_bytes(2, 10_000)) == (73_728_000, 737_280_000)
    # windows, gpt-oss: 2 x 8 heads x 64 x 2 bytes = 2,048 a token and layer; 18 layers see 128 tokens, 18 all
    windows = counted("gpt_oss")
    assert windows.kv_bytes(2, 1000) == 18 * 2048 * (128 + 1000)
    assert windows.kv_bytes(2, 10_000) == 18 * 2048 * (128 + 10_000)
    # compressed, DeepSeek-V3: 4 of its 61 layers x (512 + 64) x 2 bytes = 4,608 a token
    compressed = counted("deepseek_v3", num_hidden_layers=4)
    assert (compressed.kv_bytes(2, 1), compressed.kv_heads) == (4608, 1)
    # hybrid, 4 layers of Qwen3.5-9B: one with 2 x 4 heads x 256 x 2 bytes = 4,096 a token; three hold states
    # of 32 heads x 128 x 128 and the last 4 inputs of a convolution over 8,192 channels
    hybrid = counted("qwen3_5_text", num_hidden_layers=4)
    states = 3 * (32 * 128 * 128 + 4 * 8192) * 2
    assert hybrid.kv_bytes(2, 1000) == 4_096_000 + states
    assert hybrid.kv_bytes(2, 10_000) == 40_960_000 + states


def test_where_vllm_holds_compressed_keys_expanded():
    # MiniCPM3-4B, 2 of 62 layers x 2 x 40 heads x (64 + 32) x 2 bytes; in transformers (256 + 32) x 2 each
    assert counted("minicpm3", num_hidden_layers=2).kv_bytes(2, 1) == 2 * 2 * 40 * 96 * 2


def test_few_sequences_read_few_experts():
    size = counted("gpt_oss")
    assert size.weights_read(1) == size.active
    assert size.weights_read(1000) == size.parameters
    assert size.is_mixture
    assert not counted("smollm3").is_mixture
