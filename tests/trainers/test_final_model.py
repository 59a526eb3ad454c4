"""The model at the top of a run directory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM

from rlt.data.model_layout import ModelLayout, read_layout
from rlt.errors import CheckpointError
from rlt.trainers.final_model import generation_config, save_final_model

LAYOUT = ModelLayout("teacher", "bespoke", "Explain.", None)


def test_generation_config_stops_where_the_teacher_was_taught_to(tiny_tokenizer):
    config = generation_config(tiny_tokenizer, [5, 7], 0.7)
    assert (config.eos_token_id, config.temperature, config.do_sample) == ([5, 7], 0.7, True)
    assert config.pad_token_id == tiny_tokenizer.pad_token_id
    assert config.top_k == 0
    assert config.top_p in (None, 1.0)
    assert config.repetition_penalty in (None, 1.0)


def test_an_older_model_in_the_folder_is_replaced(tiny_teacher, tiny_student, tiny_tokenizer, tmp_path: Path):
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    tmp_path.joinpath("model-00001-of-00002.safetensors").write_bytes(b"of a run before")
    tmp_path.joinpath("metrics.jsonl").write_text("{}\n")
    for source in (tiny_student, tiny_teacher):
        model = AutoModelForCausalLM.from_pretrained(source)
        save_final_model(model, accelerator, tiny_tokenizer, tmp_path, LAYOUT)
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(tiny_teacher)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert (tmp_path / "metrics.jsonl").is_file()
    assert read_layout(tmp_path) == LAYOUT
    assert not (tmp_path / "model.new").exists()


def test_a_disk_that_fails_is_a_sentence_and_leaves_the_older_model(
    tiny_teacher, tiny_tokenizer, tmp_path: Path
):
    accelerator = Accelerator(cpu=True)
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher)
    save_final_model(model, accelerator, tiny_tokenizer, tmp_path, LAYOUT)
    (tmp_path / "model.new.partial").write_text("a file where a folder has to be")
    with pytest.raises(CheckpointError, match=r"the trained model cannot be written to .* make room"):
        save_final_model(model, accelerator, tiny_tokenizer, tmp_path, LAYOUT)
    AutoModelForCausalLM.from_pretrained(tmp_path)
