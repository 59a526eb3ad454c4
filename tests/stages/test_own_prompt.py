"""A prompt belongs to a model: what a toy teacher was trained with is what every later stage asks it with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from collect_runs import collect_words
from stage_runs import rl_words, run_here, sft_words

pytestmark = pytest.mark.slow
PROMPT = "Explain it, with a literal \\n\\n and a space at the end. "


@pytest.fixture(scope="module")
def taught(tiny_teacher: Path, tiny_student: Path, toy_problems: Path, tmp_path_factory) -> dict[str, Path]:
    """Return a teacher after its warm-up under a prompt of its own, and after RL, where nothing was typed."""
    folder = tmp_path_factory.mktemp("taught")
    (folder / "prompt.txt").write_bytes(PROMPT.encode())
    step = ("trainer.max_steps=1", "trainer.save_steps=1")
    prompt = f"layout.teacher_prompt=file:{folder / 'prompt.txt'}"
    sft = sft_words("teacher_sft", tiny_teacher, toy_problems, folder / "pre_rl_model", prompt, *step)
    pre = run_here(sft, "teacher_sft")
    rl = run_here(rl_words(pre, tiny_student, toy_problems, folder / "teacher_rl", *step))
    return {"pre": pre, "rl": rl, "folder": folder}


def test_no_word_is_needed_to_ask_a_teacher_as_it_was_trained(taught, toy_problems, tmp_path: Path):
    words = collect_words(taught["rl"], toy_problems, tmp_path / "traces", "generation.backend=transformers")
    traces = run_here([*words, "data.subset.n=1", "collect.samples_per_chunk=2"], "collect_traces")
    manifest = json.loads((traces / "samples" / "manifest.json").read_text())
    assert manifest["teacher_prompt"] == PROMPT
