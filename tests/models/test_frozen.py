"""Placements of the frozen student in one process; several processes are in test_frozen_zero3.py."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from accelerate import Accelerator
from helpers.models_tiny import expected_logprobs
from transformers import AutoModelForCausalLM

from rlt.errors import ConfigError, ModelError
from rlt.models.frozen import load_frozen
from rlt.models.load import load_model, load_tokenizer
from rlt.models.logprobs import Request

REQUESTS = [Request([5, 9, 12, 40, 3], [1, 4]), Request([8, 8, 9], [2]), Request(list(range(60)), [30, 59])]


def load(name, placement: str, dtype: str = "float32"):
    return load_frozen(
        str(name),
        placement=placement,
        dtype=dtype,
        attn_implementation="sdpa",
        accelerator=Accelerator(cpu=True),
    )


@pytest.mark.parametrize("placement", ["replicated", "cpu_offload"])
def test_placements_give_the_models_own_values(tiny_student, placement):
    student = load(tiny_student, placement)
    plain = AutoModelForCausalLM.from_pretrained(tiny_student, dtype=torch.float32)
    results = student.logprobs(REQUESTS, temperature=0.7, tokens_per_batch=64)
    for request, result in zip(REQUESTS, results, strict=True):
        expected = expected_logprobs(plain, request.ids, request.positions, 0.7)
        torch.testing.assert_close(result.double(), expected.detach(), atol=5e-5, rtol=0)


def test_offloaded_and_replicated_are_the_same(tiny_student):
    one, other = (
        load(tiny_student, placement).logprobs(REQUESTS, temperature=0.7, tokens_per_batch=64)
        for placement in ("replicated", "cpu_offload")
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offload_leaves_the_gpu_after_use(tiny_student, dtype):
    def load_on_gpu(placement):
        return load_frozen(
            str(tiny_student),
            placement=placement,
            dtype=dtype,
            attn_implementation="sdpa",
            accelerator=Accelerator(),
        )

    student = load_on_gpu("cpu_offload")
    student.logprobs(REQUESTS, temperature=0.7, tokens_per_batch=64)  # CUDA's own workspace comes and stays
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    offloaded = student.logprobs(REQUESTS, temperature=0.7, tokens_per_batch=64)
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() > before + 500_000  # the weights were there
    replicated = load_on_gpu("replicated").logprobs(REQUESTS, temperature=0.7, tokens_per_batch=64)
    assert all(torch.equal(a, b) for a, b in zip(offloaded, replicated, strict=True))


def test_one_process_never_asks_the_others(tiny_student):
    """Only a sharded student runs collectively; asking costs a synchronisation."""
    student = load(tiny_student, "replicated")

    def agree(count: int) -> int:
        raise AssertionError("not needed")

    assert not student.collective
    assert len(student.logprobs(REQUESTS, temperature=1.0, tokens_per_batch=64, agree=agree)) == 3


def test_zero3_without_deepspeed_is_refused(tiny_student):
    with pytest.raises(ConfigError, match=r"reward.placement=zero3 needs a run under DeepSpeed ZeRO-3; .*"):
        load(tiny_student, "zero3")


def test_loading_errors_name_the_place(tmp_path, tiny_student):
    with pytest.raises(ModelError, match="there is no model folder"):
        load_model(str(tmp_path / "nowhere"), dtype="float32")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ModelError, match="cannot load the model"):
        load_model(str(tmp_path), dtype="float32")


def test_pad_token_is_not_the_end_of_turn(tmp_path, tiny_tokenizer, tiny_student):
    assert load_tokenizer(str(tiny_student)).pad_token == "<|endoftext|>"
    shared_pad = deepcopy(tiny_tokenizer)
    shared_pad.pad_token = shared_pad.eos_token
    shared_pad.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
