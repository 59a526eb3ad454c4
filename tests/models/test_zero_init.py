"""Buffers of many families under ZeRO-3 in bfloat16, against plain loads of a process without DeepSpeed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from models_families import FAMILIES, KEPT_IN_FLOAT32, POSITIONS, REQUESTS, folder_of, write_family
from models_processes import run_script
from transformers import AutoModelForCausalLM

from rlt.models.logprobs import add_token_query, token_logprobs
from rlt.models.zero_init import rounded_parameters

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of one model of each family."""
    folder = tmp_path_factory.mktemp("families")
    for name in FAMILIES | KEPT_IN_FLOAT32:
        write_family(name, folder_of(name, folder))
    return folder


@pytest.fixture(scope="module")
def sharded(root: Path) -> dict[str, Any]:
    """Return what one process under ZeRO-3 found in each model."""
    run_script("models_families.py", root, processes=1, precision="bf16")
    return torch.load(root / "sharded.pt")


def differences(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of buffers that are missing, of another dtype, or not equal bit by bit."""
    assert ours.keys() == plain.keys()
    return [
        name
        for name, buffer in plain.items()
        if ours[name].dtype != buffer.dtype or not torch.equal(ours[name], buffer)
    ]


def test_buffers_are_rounded_without_the_context(root, sharded):
    """The trap is real, for tables that are made from float numbers (scaled ones begin with integers)."""
    for name in ("qwen2, theta 1e6", "qwen3.5", "gemma 3, two tables", "olmo 3", "mistral"):
        plain = AutoModelForCausalLM.from_pretrained(folder_of(name, root), dtype=torch.bfloat16)
        assert len(differences(sharded[name]["without"], dict(plain.named_buffers()))) >= 2, name
    name = "lfm2 mixture, persistent bias"
    plain = AutoModelForCausalLM.from_pretrained(folder_of(name, root), dtype=torch.bfloat16)
    rounded = differences(sharded[name]["without"], dict(plain.named_buffers()))
    assert any(buffer.endswith("expert_bias") for buffer in rounded)


@pytest.mark.parametrize("name", FAMILIES)
def test_buffers_and_log_probabilities_are_those_of_a_plain_load(name, root, sharded):
    plain = AutoModelForCausalLM.from_pretrained(
        folder_of(name, root), dtype=torch.bfloat16, attn_implementation="eager"
    )
    found = sharded[name]
    assert any(name.endswith("inv_freq") for name in found["buffers"])
    assert differences(found["buffers"], dict(plain.named_buffers())) == []
    kept = [key for key, parameter in plain.named_parameters() if parameter.dtype == torch.float32]
    assert found["rounded"] == kept

    add_token_query(plain.eval())
    with torch.no_grad():
        [expected] = token_logprobs(
            plain, REQUESTS, temperature=1.0, tokens_per_batch=POSITIONS, device=torch.device("cpu")
        )
    torch.testing.assert_close(found["logprobs"], expected, atol=1e-5, rtol=0)
    # Dynamic and long tables have been made again in this pass, beyond their first length.
    assert differences(found["after"], dict(plain.named_buffers())) == []


@pytest.mark.parametrize("name", KEPT_IN_FLOAT32)
def test_rounded_parameters_are_those_that_a_plain_load_keeps_in_float32(name, root, sharded):
    plain = AutoModelForCausalLM.from_pretrained(folder_of(name, root), dtype=torch.bfloat16)
    kept = [key for key, parameter in plain.named_parameters() if parameter.dtype == torch.float32]
    assert kept
    assert sharded[name]["dtypes"] == {torch.bfloat16}
    assert sharded[name]["rounded"] == rounded_parameters(plain) == kept  # under ZeRO-3, and before ZeRO-2
    said = sharded[name]["said"]
    assert re.match(f"DeepSpeed rounds {len(kept)} parameters? of {folder_of(name, root)} to bfloat16", said)
    assert re.sub(r"\.\d+\.", ".*.", kept[0]) in said
    assert rounded_parameters(plain.float()) == []
