"""infer in a process of its own: what it writes and nothing else, while it writes it, and how it ends."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from helpers.stage_runs import ROOT

pytestmark = pytest.mark.slow


def start(model: Path, *changes: str, cwd: Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    words = ["run_cfg=infer", f"model_name_or_path={model}", "model.dtype=float32", *changes]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "DS_"))}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=cwd,
        env=env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answer(model: Path, *changes: str, cwd: Path) -> tuple[str, str]:
    process = start(model, *changes, cwd=cwd)
    out, err = process.communicate(timeout=1000)
    assert process.returncode == 0, err
    return out, err


def test_thought_and_answer_of_a_student(taught_student, tmp_path):
    folder, (question, *_) = taught_student("end_of_text")
    asked = [f"infer.question={question}", "max_completion_length=64"]
    out, err = answer(folder, *asked, cwd=tmp_path)
    assert re.fullmatch(r"Thought\n\n([0-9][+*][0-9]=[0-9]\n){4}\nAnswer\n\n[0-9]\n", out), out
    assert err.startswith(f"INFO: layout.student_prompt is model_name_or_path={folder}'s own")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert answer(folder, *asked, cwd=tmp_path)[0] == out  # the same seed
    greedy = answer(folder, *asked, "generation.top_k=1", "seed=1", cwd=tmp_path)[0]
    assert greedy == answer(folder, *asked, "generation.top_k=1", "seed=2", cwd=tmp_path)[0]


def test_explanation_of_a_teacher_that_is_cut(tiny_teacher, tmp_path):
    asked = ["infer.question=What is 6*7?", "infer.solution=42", "max_completion_length=5"]
    out, err = answer(tiny_teacher, *asked, cwd=tmp_path)
    assert out.startswith("Explanation\n\n")
    told, cut = err.splitlines()
    assert told.startswith(
        f"INFO: model_name_or_path={tiny_teacher} has no rlt_layout.json, so this run prompts it with"
    )
    assert cut == "WARNING: cut after 5 tokens: raise max_completion_length"


def test_ctrl_c_while_it_writes(tiny_student, tmp_path):
    """Its output is a pipe that is full but for 40 bytes: it cannot come to the end of some 900 tokens."""
    reader, writer = os.pipe()
    before = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096) - 40
    os.write(writer, b"x" * before)
    process = start(tiny_student, "infer.question=What is 6*7?", cwd=tmp_path, stdout=writer)
    os.close(writer)
    try:
        while num_waiting(reader) <= before:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        with open(reader, encoding="utf-8") as pipe:
            told = pipe.read()
        _, err = process.communicate()
    finally:
        process.kill()
    assert (process.returncode, err.splitlines()[1:]) == (130, ["interrupted"])  # after whose prompt is taken
    assert len(told) > before + 1
    assert told.endswith("\n")


def num_waiting(reader: int) -> int:
    """Return how many bytes a pipe holds."""
    return struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0" * 4))[0]
