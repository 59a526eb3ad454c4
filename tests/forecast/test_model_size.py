"""Sizes from config.json against the models that transformers and peft make of them."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen3Config,
)

from rlt.forecast.model_size import PUBLISHED, read_size
from rlt.models.counting import count_size
from rlt.models.size import ModelSize, NoForecast, size_of

QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
SMALL = {
    "vocab_size": 320,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def real(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SMALL, tie_word_embeddings=True),
        Qwen2Config(**SMALL),
        Qwen3Config(**SMALL),
        Qwen3Config(**SMALL, head_dim=32, attention_bias=True),
        LlamaConfig(**SMALL),
        LlamaConfig(**SMALL, head_dim=24, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
        MistralConfig(**SMALL, sliding_window=None),
        MistralConfig(**{**SMALL, "num_key_value_heads": 6}, head_dim=32, sliding_window=None),
    ],
    ids=lambda c: c.model_type,
)
def test_what_a_few_fields_say_is_what_is_counted(config, tmp_path):
    config.save_pretrained(tmp_path)
    calculated, counted = read_size(str(tmp_path)), count_size(config, "x")
    assert calculated.parameters == count(real(config))
    assert calculated.active == pytest.approx(counted.active, rel=1e-4)  # with the ropes' angles
    others = {"active", "intermediate", "query", "key", "largest"}  # widths are one number where counted
    for name in {field.name for field in fields(ModelSize)} - others:
        assert getattr(calculated, name) == getattr(counted, name), name


def test_parameters_of_qwen_7b(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B))
    assert read_size(str(tmp_path)).parameters == 7_615_616_512
    assert count(real(AutoConfig.from_pretrained(tmp_path))) == 7_615_616_512
    assert read_size(str(tmp_path)) == PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]


def test_parameters_of_the_other_published_models():
    # 32,763,876,352 and 3,085,938,688 are what the Hub shows for Qwen2.5's safetensors files
    assert PUBLISHED["SakanaAI/RLT-32B"].parameters == 32_763_876_352
    assert PUBLISHED["Qwen/Qwen2.5-3B-Instruct"].parameters == 3_085_938_688


@pytest.mark.parametrize("modules", [["all-linear"], ["q_proj", "v_proj"], ["down_proj"]])
def test_adapters(modules):
    config = Qwen2Config(**SMALL)
    target = "all-linear" if modules == ["all-linear"] else modules
    adapted = get_peft_model(real(config), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=target))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert size_of(config.to_dict(), "x").lora_parameters(4, modules) == trained


def test_unknown_adapter_modules_count_as_all_of_them():
    size = size_of(QWEN_7B, "x")
    assert size.lora_parameters(8, ["c_attn"]) == size.lora_parameters(8, ["all-linear"])


def test_keys_and_values():
    # by hand, Qwen2.5-7B in bfloat16: 2 (keys, values) x 28 layers x 4 heads x 128 x 2 bytes
    assert size_of(QWEN_7B, "x").kv_bytes(2, 1) == 57_344
    assert size_of(QWEN_7B, "x").kv_bytes(2, 1000) == 57_344_000


@pytest.mark.parametrize("tied", [True, False])
def test_operations_of_a_forward_pass(tied):
    config = Qwen2Config(**SMALL, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:  # counts every position's attention to every other
        model(input_ids=torch.zeros(1, 50, dtype=torch.long), use_cache=False)
    forecast = size_of(config.to_dict(), "x").forward_flops(50, context=50)
    assert forecast == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.slow
def test_what_is_not_plain_is_counted_once(tmp_path, monkeypatch):
    """In a process of its own, whatever plans memory, disk and further students. Before: no forecast."""
    config = MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    config.save_pretrained(tmp_path)
    found = read_size(str(tmp_path))
    assert found == count_size(config, "x")
    assert found.parameters == count(real(config))
    # by hand: of 4 experts 2 are used, each 3 x 96 x 160, in 3 layers; the embedding is looked up
    unused = 3 * 2 * (3 * 96 * 160)
    norms = (2 * 3 + 1) * 96
    assert found.active == pytest.approx(found.parameters - unused - norms - 320 * 96, rel=1e-4)
    monkeypatch.setattr("rlt.forecast.model_size.subprocess.run", None)
    assert read_size(str(tmp_path)) == found


@pytest.mark.slow
def test_what_cannot_be_counted_is_said(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_family"}')
    with pytest.raises(
        NoForecast, match=r"of the type no_such_family, which cannot be counted \(.*\)"
    ) as raised:
        read_size(str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": "big"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_key_value_heads": True}, "num_key_value_heads"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_attention_heads": 5000}, "head_dim"),
    ],
)
def test_what_is_not_known_is_said(change, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**QWEN_7B, **change}))
    with pytest.raises(NoForecast, match=words):
        read_size(str(tmp_path))


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_broken_config_is_no_crash(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(NoForecast):
        read_size(str(tmp_path))


@pytest.mark.parametrize("name", ["no-one/no-such-model", "results/nothing/here", "x" * 200])
def test_a_model_that_is_not_here(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoForecast, match="is not on this machine"):
        read_size(name)


def test_a_model_in_the_cache_of_the_hub(monkeypatch, tmp_path):
    folder = tmp_path / "models--some--model"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    Path(folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(QWEN_7B))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert read_size("some/model").layers == 28
