"""The frozen student inside a real ZeRO-3 run of two processes (DeepSpeed on the CPU)."""

from __future__ import annotations

import json

import pytest
import torch
from models_processes import TIMEOUT, run_script
from models_tiny import expected_logprobs, tiny_model
from models_zero3 import requests_of
from transformers import AutoModelForCausalLM

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow


@pytest.mark.timeout(TIMEOUT + 120)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_placements_agree_with_one_process(tiny_tokenizer, tmp_path, tied):
    folder = tmp_path / "student"
    tiny_model(seed=4, vocab=len(tiny_tokenizer), tie_word_embeddings=tied).save_pretrained(folder)
    run_script("models_zero3.py", folder, tmp_path)

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for rank in (0, 1):
        report = json.loads((tmp_path / f"rank{rank}.json").read_text())
        # The trap is real, and leaving it for one model does not disarm ZeRO-3 for the next.
        assert report["plain_shape"] == report["plain_shape_after"] == [0]
        assert (report["replicated_collective"], report["zero3_collective"]) == (False, True)
        requests = requests_of(rank)
        for key in (f"{p}_{t}" for p in ("replicated", "cpu_offload", "zero3") for t in ("first", "again")):
            assert len(report[key]) == len(requests) == (1, 7)[rank]
            for request, values in zip(requests, report[key], strict=True):
                expected = expected_logprobs(plain, request.ids, request.positions, 0.7).detach()
                torch.testing.assert_close(torch.tensor(values).double(), expected, atol=1e-4, rtol=0)
