"""infer in a process of its own: what it writes and nothing else, while it writes it, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stage_runs import ROOT

pytestmark = pytest.mark.slow


def start(model: Path, *changes: str, cwd: Path) -> subprocess.Popen[str]:
    words = ["run_cfg=infer", f"model_name_or_path={model}", "model.dtype=float32", *changes]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "DS_"))}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=cwd,
        env=env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answer(model: Path, *changes: str, cwd: Path) -> tuple[str, str]:
    process = start(model, *changes, cwd=cwd)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


def test_thought_and_answer_of_a_student(taught_student, tmp_path):
    folder, (question, *_) = taught_student("end_of_text")
    asked = [f"infer.question={question}", "layout.student_prompt=Think.", "max_completion_length=64"]
    out, err = answer(folder, *asked, cwd=tmp_path)
    assert re.fullmatch(r"Thought\n\n([0-9][+*][0-9]=[0-9]\n){4}\nAnswer\n\n[0-9]\n", out), out
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    assert answer(folder, *asked, cwd=tmp_path)[0] == out  # the same seed
    greedy = answer(folder, *asked, "generation.top_k=1", "seed=1", cwd=tmp_path)[0]
    assert greedy == answer(folder, *asked, "generation.top_k=1", "seed=2", cwd=tmp_path)[0]


def test_explanation_of_a_teacher_that_is_cut(tiny_teacher, tmp_path):
    asked = ["infer.question=What is 6*7?", "infer.solution=42", "max_completion_length=5"]
    out, err = answer(tiny_teacher, *asked, cwd=tmp_path)
    assert out.startswith("Explanation\n\n")
    assert err == "WARNING: cut after 5 tokens: raise max_completion_length\n"


def test_ctrl_c_while_it_writes(tiny_student, tmp_path):
    process = start(tiny_student, "infer.question=What is 6*7?", cwd=tmp_path)
    try:
        assert process.stdout is not None
        first = process.stdout.read(1)  # written long before the last of some 900 tokens
        os.kill(process.pid, signal.SIGINT)
        began = time.monotonic()
        rest, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert first
    assert (process.returncode, err) == (130, "interrupted\n")
    assert rest.endswith("\n")
    assert time.monotonic() - began < 20
