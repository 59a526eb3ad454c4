"""Tiny models of several families: their sizes, what stays of the family, and what cannot be made small."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    Gemma3Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from rlt.errors import ModelError
from rlt.models.load import load_eos_ids, load_tokenizer
from rlt.models.tiny import shrink, write_tiny

LLAMA_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 48,
    "long_factor": [2.0] * 48,
    "factor": 2.0,
    "original_max_position_embeddings": 512,
}
SMALL = {
    "vocab_size": 100,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def built(config):
    """Return the tiny model of a configuration, which has read a few ids."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shrink(config))
    assert model(torch.arange(7)[None]).logits.shape == (1, 7, 100)
    return model


def parameters(model) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_qwen2_by_hand():
    model = built(Qwen2Config(**SMALL, num_attention_heads=28, num_key_value_heads=4, num_hidden_layers=28))
    # A layer: q and o (64 x 64), k and v (64 x 32), biases of q, k, v, the MLP's three (64 x 128), norms.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + (64 + 2 * 32) + 3 * 64 * 128 + 2 * 64
    assert parameters(model) == 2 * layer + 64 + 2 * 100 * 64  # the last norm; embedding and head
    assert model.config.max_position_embeddings == 1024
    assert len(model.config.layer_types) == 2


def test_a_tied_qwen3_keeps_its_norms_and_one_embedding():
    model = built(Qwen3Config(**SMALL, tie_word_embeddings=True, head_dim=128))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.layers[0].self_attn.q_norm.weight.shape == (32,)


def test_rope_stays():
    llama = built(LlamaConfig(**SMALL, rope_parameters=dict(LLAMA_ROPE), num_key_value_heads=8))
    assert llama.config.rope_parameters["rope_type"] == "llama3"
    assert llama.config.num_key_value_heads == 1
    phi = built(Phi3Config(**SMALL, rope_parameters=dict(LONG_ROPE)))
    assert len(phi.config.rope_parameters["long_factor"]) == 16  # of 32 dimensions
    assert phi.config.num_key_value_heads == 2  # as many as heads, as there were


def test_each_kind_of_layer_is_kept_once():
    config = shrink(Gemma3TextConfig(**SMALL))
    assert config.layer_types == ["sliding_attention", "full_attention"]
    built(Gemma3TextConfig(**SMALL))


def test_layers_of_other_sizes_stay_larger():
    """Before: AmbiguousGlobalPerLayerAttributeError, whose name is all that a rehearsal said."""
    given = Gemma4TextConfig(**SMALL, vocab_size_per_layer_input=100)
    assert [given.per_layer_config[i].head_dim for i in (0, 5)] == [256, 512]
    model = built(given)
    assert model.config.layer_types == ["sliding_attention", "full_attention"]
    widths = [layer.self_attn.q_proj.out_features for layer in model.model.layers]
    assert widths == [2 * 32, 2 * 64]
    assert given.per_layer_config[5].head_dim == 512


def test_parts_for_images_are_made_small():
    """Before: refused, for 93 million parameters would have been left."""
    config = shrink(Gemma3Config(text_config=SMALL))
    assert config.vision_config.num_hidden_layers == 1
    assert parameters(AutoModelForCausalLM.from_config(config)) < 2_000_000


def test_compressed_keys_and_values_go_together():
    """Before: a traceback at the first step, for the rope had 32 dimensions and its place 64."""
    model = built(DeepseekV3Config(**SMALL))
    assert model.config.n_routed_experts == 4
    assert parameters(model) < 500_000


def test_experts_stay_several():
    model = built(Qwen3MoeConfig(**SMALL, num_experts=128))
    assert model.config.num_experts_per_tok == 2
    assert parameters(model) < 300_000


def test_heads_that_servers_share_out():
    config = shrink(Qwen2Config(**SMALL, num_attention_heads=28, num_key_value_heads=4), heads=8)
    assert (config.num_attention_heads, config.num_key_value_heads, config.hidden_size) == (8, 4, 256)


def test_the_original_is_left_alone():
    config = Qwen2Config(**SMALL)
    shrink(config)
    assert (config.hidden_size, len(config.layer_types)) == (4096, 32)


def test_what_is_written(tiny_teacher, tmp_path):
    shrunk = write_tiny(str(tiny_teacher), tmp_path / "a", seed=1)
    assert str(shrunk) == "qwen2 with 2 of 2 layers and 64 of 128 dimensions"
    assert shrunk.context == 1024
    given, written = (AutoTokenizer.from_pretrained(f) for f in (tiny_teacher, tmp_path / "a"))
    assert written.get_vocab() == given.get_vocab()
    assert written.chat_template == given.chat_template
    assert load_tokenizer(str(tmp_path / "a")).pad_token == load_tokenizer(str(tiny_teacher)).pad_token
    assert load_eos_ids(str(tmp_path / "a")) == load_eos_ids(str(tiny_teacher))
    weights = []
    for seed, name in ((1, "b"), (2, "c")):
        write_tiny(str(tiny_teacher), tmp_path / name, seed=seed)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == (tmp_path / "a" / "model.safetensors").read_bytes() != weights[1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            MambaConfig(vocab_size=400, num_hidden_layers=64, time_step_rank=100_000).to_dict(),
            "would be left",
        ),
        ({"model_type": "qwen2", "quantization_config": {"quant_method": "awq"}}, "is quantised"),
        ({"model_type": "gptj", "vocab_size": 400}, "must match the size of tensor"),  # at the first token
        ({"model_type": "qwen2", "hidden_act": "no_such_function"}, "can be made of"),
    ],
)
def test_what_cannot_be_made_small_is_one_sentence(tiny_teacher, tmp_path, fields, reason):
    shutil.copytree(tiny_teacher, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=reason) as raised:
        write_tiny(str(tmp_path / "copy"), tmp_path / "out", seed=0)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
