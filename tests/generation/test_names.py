"""Trainers and servers that name weights differently: real classes, real checkpoints, no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from helpers.generation_server import running_server
from helpers.generation_tiny import tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from rlt.errors import ModelError
from rlt.generation.checkpoint_sync import CheckpointSync
from rlt.generation.names import served_names
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weights import model_weights
from rlt.models.checkpoint_tensors import checkpoint_tensors

TEXT = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    **{"head_dim": 32, "intermediate_size": 96, "vocab_size": 300, "tie_word_embeddings": False},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
TOWER = {"hidden_size": 32, "intermediate_size": 32}
QWEN_TOWER = {**TOWER, "depth": 1, "num_heads": 2, "out_hidden_size": 64, "num_position_embeddings": 16}
QWEN_TOKENS = dict(
    zip(("image_token_id", "video_token_id", "vision_start_token_id"), (290, 291, 292), strict=True)
)


def qwen3_5() -> Qwen3_5ForConditionalGeneration:
    linear = dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2)
    kinds = ["linear_attention", "full_attention"]
    config = Qwen3_5Config(
        text_config={**TEXT, **linear, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
        | {"layer_types": kinds},
        vision_config=QWEN_TOWER,
        **QWEN_TOKENS,
    )
    return Qwen3_5ForConditionalGeneration(config)


def gemma3() -> Gemma3ForConditionalGeneration:
    tower = {**TOWER, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=TEXT, vision_config=tower, mm_tokens_per_image=4, tie_word_embeddings=False)
    )


def qwen3_moe() -> Qwen3MoeForCausalLM:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**TEXT, moe_intermediate_size=48, num_experts=4, num_experts_per_tok=2)
    )


def saved(model: PreTrainedModel, folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    return folder


def sent(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Return what servers of a folder would be sent."""
    names = served_names(model, checkpoint_tensors(str(folder)), str(folder))
    return {name: tensor.clone() for name, tensor in names(model_weights(model))}


@pytest.mark.parametrize("make", [qwen3_5, gemma3, qwen3_moe])
def test_what_is_sent_is_what_the_checkpoint_holds(make, tmp_path):
    """Before: `model.layers…` for `model.language_model.layers…`, one tensor for all experts of a layer."""
    folder = saved(make(), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ours, theirs = sent(model, folder), load_file(folder / "model.safetensors")
    assert set(model_weights_names(model)) != set(ours)  # so there is something to see
    assert ours.keys() <= theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rest = {name for name in theirs if name not in ours}
    assert all("visual" in name for name in rest)
    assert bool(rest) == (make is qwen3_5)  # the class for text leaves the tower away


def model_weights_names(model: PreTrainedModel) -> list[str]:
    return [name for name, _ in model_weights(model)]


def test_adapters_are_merged_under_the_servers_names(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is an extra")
    folder = saved(qwen3_5(), tmp_path)
    plain = sent(AutoModelForCausalLM.from_pretrained(folder), folder)
    base = AutoModelForCausalLM.from_pretrained(folder)
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    merged = sent(wrapped, folder)
    assert {name for name in plain if not torch.equal(plain[name], merged[name])} == {
        "model.language_model.layers.1.self_attn.q_proj.weight"
    }


def test_a_prefix_is_found_where_transformers_does_not_go_back(tmp_path):
    """A text-only model of our own making, and servers of a checkpoint in which it is a part."""
    folder = saved(gemma3(), tmp_path / "whole")
    theirs = load_file(folder / "model.safetensors")
    model = Gemma3ForCausalLM(Gemma3TextConfig(**TEXT))
    ours = sent(model, folder)
    layer = "layers.1.self_attn.q_proj.weight"
    assert torch.equal(ours[f"language_model.model.{layer}"], model.get_parameter(f"model.{layer}"))
    assert ours.keys() == {name for name in theirs if name.startswith("language_model.")}


def test_checkpoints_in_shards_and_without_safetensors(tmp_path):
    model = qwen3_moe()
    saved(model, tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert checkpoint_tensors(str(tmp_path / "many")) == checkpoint_tensors(str(tmp_path / "one"))
    (tmp_path / "none").mkdir()
    assert checkpoint_tensors(str(tmp_path / "none")) is None
    broken = tmp_path / "one" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(ModelError, match=r"cannot be read .* copy it again"):
        checkpoint_tensors(str(tmp_path / "one"))
    next((tmp_path / "many").glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"which its model\.safetensors\.index\.json names; copy it again"):
        checkpoint_tensors(str(tmp_path / "many"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 301}, r"no tensors for lm_head.weight \[301, 64\], model.*embed_tokens.weight"),
        ({"num_hidden_layers": 3}, r"no tensors for model.layers.2.* and \d+ others"),
        (
            {"num_hidden_layers": 1},
            r"nothing is trained for model.layers.1.* and \d+ others of its checkpoint",
        ),
        ({"num_experts": 3}, r"no tensors for model.layers.0.mlp.gate.weight \[3, 64\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(change, words, tmp_path):
    """Before: the first push failed, or a server kept a layer as it was and only its log said so."""
    folder = saved(qwen3_moe(), tmp_path)
    moe = {"moe_intermediate_size": 48, "num_experts": 4, "num_experts_per_tok": 2}
    other = Qwen3MoeForCausalLM(Qwen3MoeConfig(**{**TEXT, **moe, **change}))
    with pytest.raises(ModelError, match=words) as raised:
        sent(other, folder)
    assert "\n" not in str(raised.value)
    assert "generation.backend=transformers" in str(raised.value)


def test_two_places_with_the_same_shapes_are_no_place(tmp_path):
    folder = saved(gemma3(), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    inner = {name: tensor for name, tensor in tensors.items() if name.startswith("language_model.")}
    twice = {name.replace("language_model.", "another."): tensor.clone() for name, tensor in inner.items()}
    save_file(tensors | twice, folder / "model.safetensors")
    with pytest.raises(ModelError, match="has no tensors for"):
        sent(Gemma3ForCausalLM(Gemma3TextConfig(**TEXT)), folder)


@pytest.mark.vllm
@pytest.mark.long  # a server of its own
def test_a_server_of_a_mixture_generates_with_what_is_sent(tmp_path):
    """Before, log-probabilities were off by 0.17: vLLM packs experts on a CPU at its start alone."""
    small = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    moe = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
    tokenizer = tiny_tokenizer()
    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**{**TEXT, **small, **moe, "vocab_size": len(tokenizer), "initializer_range": 0.1})
    )
    tokenizer.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    ids_T = torch.tensor([5, 9, 30, 77, 120, 200, 31, 8])
    with torch.no_grad():
        logprobs_TV = trained(ids_T.unsqueeze(0)).logits[0, :-1].log_softmax(1)
    expected = logprobs_TV.gather(1, ids_T[1:].unsqueeze(1)).squeeze(1).tolist()
    folder = str(tmp_path / "model")
    names = served_names(trained, checkpoint_tensors(folder), folder)
    with running_server(tmp_path / "model", tmp_path / "vllm.log") as server:
        pool = VLLMPool([server.address], timeout=1000)
        for _ in range(2):  # packed anew each time
            CheckpointSync(pool, tmp_path / "sync", timeout=1000).push(names(model_weights(trained)))
            body = {"prompt": ids_T.tolist(), "max_tokens": 1, "prompt_logprobs": 0}
            answer = requests.post(server.address + "/v1/completions", json=body, timeout=1000).json()
            found = [next(iter(p.values()))["logprob"] for p in answer["choices"][0]["prompt_logprobs"][1:]]
            assert found == pytest.approx(expected, abs=1e-4)
