"""The moving reference in one process, with numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from rlt.errors import CheckpointError
from rlt.trainers.reference import MovingReference


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def filled(value: float) -> nn.Linear:
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, -value)
    return layer


def test_mix_by_hand(accelerator):
    # 0.9 * 3 + 0.1 * 1 = 2.8; again: 0.9 * 3 + 0.1 * 2.8 = 2.98
    policy, reference = filled(3.0), filled(1.0)
    moving = MovingReference(policy, reference, accelerator, every=2, share=0.9)
    moving.mix()
    assert reference.weight.tolist() == [[pytest.approx(2.8), pytest.approx(2.8)]]
    assert reference.bias.tolist() == [pytest.approx(-2.8)]
    moving.mix()
    assert reference.bias.tolist() == [pytest.approx(-2.98)]
    assert policy.weight.tolist() == [[3.0, 3.0]]


def test_it_moves_every_nth_step(accelerator):
    reference = filled(1.0)
    moving = MovingReference(filled(3.0), reference, accelerator, every=32, share=0.9)
    after = {}
    for step in range(1, 65):
        moving.on_step_end(None, SimpleNamespace(global_step=step), None)
        after[step] = round(reference.weight[0, 0].item(), 4)
    assert (after[31], after[32], after[63], after[64]) == (1.0, 2.8, 2.8, 2.98)


def test_a_bfloat16_policy_mixes_into_a_float32_reference(accelerator):
    policy, reference = filled(3.0).to(torch.bfloat16), filled(1.0)
    MovingReference(policy, reference, accelerator, every=1, share=0.9).mix()
    assert reference.weight.dtype == torch.float32
    assert reference.weight[0, 0].item() == pytest.approx(2.8)


def test_save_and_load(accelerator, tmp_path: Path):
    saved = filled(1.25)
    MovingReference(filled(3.0), saved, accelerator, every=1, share=0.9).save(tmp_path)
    other = filled(7.0)
    moving = MovingReference(filled(3.0), other, accelerator, every=1, share=0.9)
    moving.load(tmp_path)
    assert other.weight.tolist() == [[1.25, 1.25]]
    with pytest.raises(CheckpointError, match="holds no reference/ folder"):
        moving.load(tmp_path / "elsewhere")


def test_a_disk_that_fails_is_a_sentence(accelerator, tmp_path: Path):
    (tmp_path / "reference.partial").write_text("a file where a folder has to be")
    moving = MovingReference(filled(3.0), filled(1.0), accelerator, every=1, share=0.9)
    with pytest.raises(CheckpointError, match=r"the reference model cannot be written to .* make room"):
        moving.save(tmp_path)
