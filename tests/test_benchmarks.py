"""The benchmarks run: their numbers are for a quiet machine, but they must not rot in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.slow


def run(script: str, *words: str) -> str:
    command = [sys.executable, str(SCRIPTS / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.long
def test_bench_reward_compares_three_ways_that_agree():
    size = ["--completions", "2", "--tokens", "8", "--vocabulary", "2000", "--repeats", "1", "--threads", "1"]
    (line,) = run("bench_reward.py", *size, "--shapes", "64x1").splitlines()
    shape = json.loads(line)["shapes"]["64x1"]
    assert shape["seconds"].keys() == {"reward", "floor", "reward_with_teacher", "plain"}
    assert shape["largest_difference"] < 1e-4
    assert shape["reward_to_floor"] > 0


def test_bench_step_finds_everything_it_imports():
    assert "--completions" in run("bench_step.py", "--help")


def test_bench_collect_finds_everything_it_imports():
    assert "--in-flight" in run("bench_collect.py", "--help")


def test_bench_scorer_runs_without_a_gpu():
    size = ["--shapes", "tiny", "--completions", "2", "--tokens", "16", "--repeats", "1"]
    (line,) = run("bench_scorer.py", *size).splitlines()
    assert json.loads(line)["shapes"]["tiny"]["tokens_per_second"] > 0


def test_bench_grading_knows_what_is_right():
    (line,) = run("bench_grading.py", "--answers", "200", "--repeats", "1").splitlines()
    found = json.loads(line)
    assert found["unexpected_verdicts"] == 0
    assert found["verdicts_per_second"] > 0
