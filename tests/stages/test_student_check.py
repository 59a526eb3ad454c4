"""A sharded frozen model is compared with its plain load at the end of what it will score."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from rlt.errors import ModelError
from rlt.models.frozen import FrozenModel, load_whole
from rlt.models.plain import PlainModel
from rlt.rundir.run_record import RunRecord
from rlt.stages.student_check import Processes, Sharded, StudentCheck, texts, verify_sharded

CPU = torch.device("cpu")
LENGTH = 3000


def test_texts_by_hand():
    asked = texts([([1, 2], [3]), ([4, 5, 6], [7, 8])], 12, [[9], [1, 1, 2], [3], [9, 9]])
    assert asked.long.ids == [4, 5, 6, 9, 1, 1, 2, 3, 9, 9, 7, 8]
    assert texts([([1, 2], [3])], 8, [[9, 8]]).long.ids == [1, 2, 9, 8, 9, 8, 9, 3]
    assert [request.ids for request in asked.short] == [[1, 2, 3], [4, 5, 6, 7, 8]]
    assert list(asked.long.positions) == list(range(1, 12))
    assert asked.where == "11 tokens after 1"


@pytest.fixture(scope="module")
def student(tiny_tokenizer, save_tiny, tmp_path_factory) -> Path:
    """Return a student with heads and rotary base of Qwen2.5."""
    return save_tiny(
        tiny_tokenizer,
        tmp_path_factory.mktemp("student") / "model",
        hidden_size=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        max_position_embeddings=4096,
        initializer_range=0.07,
    )


def verify(student: Path, directory: Path, dtype: torch.dtype) -> dict:
    """Compare a model whose rotary frequencies are in a dtype; return what run.json tells of it."""
    module = load_whole(str(student), dtype="bfloat16", device=CPU)
    rotary = module.model.rotary_emb
    rotary.inv_freq = rotary.inv_freq.to(dtype)
    model = FrozenModel(module, CPU, rests_on_cpu=False, collective=True)  # as under ZeRO-3, in one process
    directory.mkdir()
    record = RunRecord.start(directory, stage="teacher_rl", seed=1, inputs={})
    rng = random.Random(1)
    rows = [[rng.randrange(5, 250) for _ in range(200)] for _ in range(20)]
    asked = texts([(row, [3, 4]) for row in rows[:2]], LENGTH, rows)
    sharded = Sharded("student", model, PlainModel(str(student), "bfloat16"), asked, 0.7, 4096)
    check = StudentCheck([], 0, record)
    verify_sharded(sharded, check, Processes(Accelerator(cpu=True), lambda count: count))
    return json.loads((directory / "run.json").read_text())["student_check"]["student"]


def test_a_plain_load_agrees_with_itself(student: Path, tmp_path: Path):
    assert verify(student, tmp_path / "run", torch.float32)["mean"] < 0.005


def test_rounded_rotary_frequencies_are_found_at_the_end(student: Path, tmp_path: Path):
    with pytest.raises(ModelError) as error:
        verify(student, tmp_path / "run", torch.bfloat16)
    said = str(error.value)
    assert "64 tokens after 2936 (limit 0.05), and by 0.0" in said
    assert "it grows with the position: model.rotary_emb.inv_freq is bfloat16 and not float32; take " in said
