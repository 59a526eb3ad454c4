"""The stream of weights: names, ties, LoRA, and ZeRO-3 with two real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.generation_tiny import tiny_model

from rlt.generation.weights import model_weights


@pytest.mark.parametrize("tied", [False, True])
def test_names_and_values_are_those_of_a_saved_checkpoint(tied: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = tiny_model(seed=1, tied=tied)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    ours = dict(model_weights(model))
    assert set(ours) == set(saved)
    assert ("lm_head.weight" in ours) is not tied
    assert all(torch.equal(ours[name], saved[name]) for name in saved)


def test_lora_is_added_on_the_way() -> None:
    peft = pytest.importorskip("peft", reason="peft is an extra")
    base = tiny_model(seed=1)
    plain = {name: tensor.clone() for name, tensor in model_weights(base)}
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
    wrapped = peft.get_peft_model(base, config)
    factors = {name: p for name, p in wrapped.named_parameters() if "lora_B" in name}
    for factor in factors.values():
        torch.nn.init.normal_(factor)
    streamed = {name: tensor.clone() for name, tensor in model_weights(wrapped)}
    assert set(streamed) == set(plain)
    changed = {name for name in plain if not torch.equal(plain[name], streamed[name])}
    assert changed == {n for n in plain if "q_proj.weight" in n or "down_proj.weight" in n}
    merged = dict(model_weights(wrapped.merge_and_unload()))
    assert all(torch.allclose(streamed[name], merged[name], atol=1e-6) for name in plain)


ZERO3_SCRIPT = """
import sys
from contextlib import nullcontext
import torch
import deepspeed
sys.path.insert(0, sys.argv[1])
from helpers.generation_tiny import tiny_model
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Sampling
from rlt.generation.weights import model_weights

deepspeed.init_distributed("gloo", verbose=False)
rank = torch.distributed.get_rank()
plain, model = tiny_model(seed=1), tiny_model(seed=1)
config = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
}
engine = deepspeed.initialize(model=model, config=config)[0]
assert sum(p.numel() > 0 for p in model.parameters()) == 0

expected, whole = dict(model_weights(plain)), []
for name, tensor in model_weights(engine.module):
    assert torch.equal(tensor, expected.pop(name)), name
    whole.append(sum(p.numel() > 0 for p in model.parameters()))
assert not expected
# One parameter is whole at a time, and none afterwards.
assert set(whole) == {1}, whole
assert sum(p.numel() > 0 for p in model.parameters()) == 0

# The processes stop after different numbers of tokens; without synced_gpus they would wait for each other.
def generate(model, synced_gpus):
    generator = TransformersGenerator(lambda: nullcontext(model), 0, 2, synced_gpus=synced_gpus)
    return generator.generate([[rank + 1, 2, 3], [4, 5]], 2, Sampling(0.7, (30, 6)[rank], ()), [rank, 9])
ours, alone = generate(engine.module, True), generate(plain, False)
assert [[c.token_ids for c in g] for g in ours] == [[c.token_ids for c in g] for g in alone]
torch.distributed.destroy_process_group()
print("same weights and samples", flush=True)
"""


@pytest.mark.slow
def test_zero3_gathers_one_parameter_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="deepspeed is an extra")
    script = tmp_path / "script.py"
    script.write_text(ZERO3_SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(Path(__file__).parents[1])],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=1000)
            assert process.returncode == 0, output
            assert "same weights and samples" in output
    finally:
        for process in processes:
            process.kill()
