"""The copy of a student whose log-probabilities are those of the student at a temperature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.models_tiny import expected_logprobs, tiny_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, PhiConfig, PhiForCausalLM

from rlt.errors import ModelError
from rlt.models.scaled_head import model_folder, weights_bytes, write_scaled_copy

IDS = [5, 9, 300, 17, 17, 2, 44]
POSITIONS = [1, 3, 6]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def phi() -> PhiForCausalLM:
    """Return a model whose LM head has a bias."""
    torch.manual_seed(3)
    size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = PhiForCausalLM(PhiConfig(vocab_size=517, initializer_range=0.2, **size)).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    return model


MODELS = {
    "tied": lambda: tiny_model(seed=1, tie_word_embeddings=True),
    "untied": lambda: tiny_model(seed=1),
    "bias": phi,
}


@pytest.mark.parametrize("shard_size", ["5GB", "60KB"], ids=["one_file", "shards"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_copy_at_1_is_the_model_at_its_temperature(tmp_path, kind, shard_size):
    model = MODELS[kind]()
    model.save_pretrained(tmp_path / "student", max_shard_size=shard_size)
    write_scaled_copy(tmp_path / "student", tmp_path / "copy", 0.7)
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", dtype=torch.float32)
    exact = expected_logprobs(model, IDS, POSITIONS, 0.7)
    torch.testing.assert_close(expected_logprobs(copy, IDS, POSITIONS, 1.0), exact, atol=1e-5, rtol=0)
    assert not torch.allclose(expected_logprobs(model, IDS, POSITIONS, 1.0), exact, atol=0.1)

    ours, theirs = tensors(tmp_path / "copy"), tensors(tmp_path / "student")
    assert len(list((tmp_path / "student").glob("*.safetensors"))) == 1 or shard_size == "60KB"
    for name in theirs.keys() - {"lm_head.weight", "lm_head.bias"}:
        assert torch.equal(ours.pop(name), theirs[name]), name
    assert ours.keys() == ({"lm_head.weight", "lm_head.bias"} if kind == "bias" else {"lm_head.weight"})


def test_a_bfloat16_model_keeps_its_tensors_and_loses_nothing_in_the_head(tmp_path):
    tiny_model(seed=1).bfloat16().save_pretrained(tmp_path / "student")
    write_scaled_copy(tmp_path / "student", tmp_path / "copy", 0.7)
    ours, theirs = tensors(tmp_path / "copy"), tensors(tmp_path / "student")
    assert torch.equal(ours["lm_head.weight"], theirs["lm_head.weight"].float() / 0.7)
    assert ours["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert weights_bytes(tmp_path / "copy") > weights_bytes(tmp_path / "student")
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["dtype"] == "bfloat16"


def test_weights_in_another_format(tmp_path):
    tiny_model().save_pretrained(tmp_path / "student")
    (tmp_path / "student" / "model.safetensors").rename(tmp_path / "student" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no model.safetensors; save the model in that format"):
        write_scaled_copy(tmp_path / "student", tmp_path / "copy", 0.7)
    assert not (tmp_path / "copy").exists()


def test_a_name_that_is_not_on_this_machine(tmp_path):
    assert model_folder("nobody/such-a-model", download=False) is None
    with pytest.raises(ModelError, match=r"'nobody/such-a-model' is no folder, and the Hub does not give it"):
        model_folder("nobody/such-a-model", download=True)
    assert model_folder(str(tmp_path), download=False) == tmp_path


SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}


@pytest.mark.parametrize("config", [CohereConfig(**SMALL, num_attention_heads=2, logit_scale=0.1)])
def test_a_scale_after_the_head_stays(tmp_path, config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "student")
    write_scaled_copy(tmp_path / "student", tmp_path / "copy", 0.7)
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", dtype=torch.float32)
    ids, positions = [3, 9, 4, 5], [1, 3]
    exact = expected_logprobs(model, ids, positions, 0.7)
    torch.testing.assert_close(expected_logprobs(copy, ids, positions, 1.0), exact, atol=1e-5, rtol=0)


def test_a_cap_after_the_head_is_refused_by_name(tmp_path):
    """It was written: a server of it scored at another temperature than it was told."""
    config = Gemma2Config(**SMALL, num_attention_heads=2, num_key_value_heads=1, final_logit_softcapping=30.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "student")
    with pytest.raises(
        ModelError, match=r"Gemma2ForCausalLM do not scale with its LM head.*placement=replicated"
    ):
        write_scaled_copy(tmp_path / "student", tmp_path / "copy", 0.7)
    assert not (tmp_path / "copy").exists()
