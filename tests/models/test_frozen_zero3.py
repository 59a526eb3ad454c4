"""The frozen student inside a real ZeRO-3 run of two processes (DeepSpeed on the CPU)."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch
from helpers.models_tiny import expected_logprobs, tiny_model
from models_processes import TIMEOUT, run_script
from models_zero3 import STUDENTS, requests_of
from transformers import AutoModelForCausalLM, Gemma2Config

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow


def capped(vocabulary: int):
    """Return a model with a cap on its logits, which its own forward has to apply."""
    torch.manual_seed(5)
    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        initializer_range=0.2,
        final_logit_softcapping=4.0,
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.fixture(scope="module")
def folder(tiny_tokenizer, tmp_path_factory):
    """Return the folder of what two processes found of all models."""
    root, size = tmp_path_factory.mktemp("students"), len(tiny_tokenizer)
    tiny_model(seed=4, vocab=size).save_pretrained(root / "untied")
    tiny_model(seed=4, vocab=size, tie_word_embeddings=True).save_pretrained(root / "tied")
    capped(size).save_pretrained(root / "capped")
    run_script("models_zero3.py", root, root)
    return root


@pytest.mark.timeout(TIMEOUT + 120)
@pytest.mark.parametrize("kind", STUDENTS)
def test_placements_agree_with_one_process(kind, folder):
    plain = AutoModelForCausalLM.from_pretrained(
        folder / kind, dtype=torch.float32, attn_implementation="eager"
    )
    for rank in (0, 1):
        report = json.loads((folder / f"rank{rank}.json").read_text())
        # The trap is real, and leaving it for one model does not disarm ZeRO-3 for the next.
        assert report["plain_shape"] == report["plain_shape_after"] == [0]
        assert (report["replicated_collective"], report["zero3_collective"]) == (False, True)
        requests = requests_of(rank)
        for place, turn in product(("replicated", "cpu_offload", "zero3"), ("first", "again")):
            key = f"{kind}_{place}_{turn}"
            assert len(report[key]) == len(requests) == (1, 7)[rank]
            for request, values in zip(requests, report[key], strict=True):
                expected = expected_logprobs(plain, request.ids, request.positions, 0.7).detach()
                torch.testing.assert_close(torch.tensor(values).double(), expected, atol=1e-4, rtol=0)
