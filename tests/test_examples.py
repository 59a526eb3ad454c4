"""The example scripts run as a user runs them, on tiny models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"
pytestmark = pytest.mark.slow


def run(script: str, *words: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1000, check=True).stdout


def test_reward_in_grpo_trains(tiny_teacher, tiny_student, toy_problems, tmp_path):
    run("reward_in_grpo.py", tiny_teacher, tiny_student, toy_problems, tmp_path)
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    for step in state["log_history"][:2]:
        assert step["rewards/student_likelihood/mean"] == pytest.approx(step["r_ss"] - step["r_kl"], abs=1e-4)


def test_reward_in_python_prints_each_explanation_with_its_parts(tiny_student):
    lines = run("reward_in_python.py", tiny_student).splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["Six sevens are 42.", "No idea."]
    for line in lines:
        reward, r_ss, r_kl = map(float, re.findall(r"[+-]\d+\.\d+", line))
        assert reward == pytest.approx(r_ss - r_kl, abs=0.002)


def test_the_reading_copy_runs_to_its_end():
    """Two steps of everything; tests/trainers/test_one_file.py compares its numbers."""
    lines = run("rlt_in_one_file.py", "--base-steps", "2", "--rl-steps", "1").splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith(("before", "after"))] == [
        "before RL",
        "after RL",
    ]
    assert any(line.startswith("  step 1/1  reward -") for line in lines)


def test_every_example_is_run_here():
    examples = {"reward_in_grpo.py", "reward_in_python.py", "rlt_in_one_file.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == examples
