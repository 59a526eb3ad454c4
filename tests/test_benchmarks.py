"""The benchmarks run: their numbers are for a quiet machine, but they must not rot in between."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.slow


def run(script: str, *words: str) -> str:
    command = [sys.executable, str(SCRIPTS / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=1000, check=True).stdout


@pytest.mark.long
def test_bench_reward_compares_three_ways_that_agree():
    size = ["--completions", "2", "--tokens", "8", "--vocabulary", "2000", "--repeats", "1", "--threads", "1"]
    (line,) = run("bench_reward.py", *size, "--shapes", "64x1").splitlines()
    shape = json.loads(line)["shapes"]["64x1"]
    assert shape["seconds"].keys() == {"reward", "floor", "reward_with_teacher", "plain"}
    assert shape["largest_difference"] < 1e-4
    assert shape["reward_to_floor"] > 0


TINY_STEP = ["--completions", "8", "--tokens", "32", "--hidden", "32", "--steps", "1", "--per-device", "4"]


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_bench_step_compares_both_trainers(processes):
    (line,) = run("bench_step.py", *TINY_STEP, "--processes", processes).splitlines()
    found = json.loads(line)
    assert found["ratio_after_generation"] > 0
    assert found["perf/padding"] > 1  # rows of a micro-batch differ in length
    assert found["rlt_seconds"].keys() - found["trl_seconds"].keys() >= {"reward", "reference"}


def test_the_mix_of_lengths(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from length_mix import lengths

    assert lengths("equal", 4, 100) == [25, 25, 25, 25]
    mix = lengths("lognormal", 1000, 4000)
    assert sum(mix) / 1000 == pytest.approx(1000, rel=0.001)
    assert max(mix) == mix[0] == 4000
    assert mix == lengths("lognormal", 1000, 4000)
    below, above = sum(n < 640 for n in mix), sum(n > 640 for n in mix)
    # Half of the rows are shorter than exp(-1/2) of the mean, a bit more where the long ones are cut.
    assert below == pytest.approx(above, rel=0.1)


@pytest.mark.parametrize(
    ("script", "option"),
    [("bench_collect", "--in-flight"), ("bench_async", "--rounds"), ("bench_ahead", "--seeds")],
)
def test_a_benchmark_with_a_server_finds_everything_it_imports(script, option):
    assert option in run(f"{script}.py", "--help")


def test_bench_scorer_runs_without_a_gpu():
    size = ["--shapes", "tiny", "--completions", "2", "--tokens", "16", "--repeats", "1"]
    (line,) = run("bench_scorer.py", *size).splitlines()
    assert json.loads(line)["shapes"]["tiny"]["tokens_per_second"] > 0


def test_bench_grading_knows_what_is_right():
    (line,) = run("bench_grading.py", "--answers", "200", "--repeats", "1").splitlines()
    found = json.loads(line)
    assert found["unexpected_verdicts"] == 0
    assert found["verdicts_per_second"] > 0


# ---- bench_gpu ------------------------------------------------------------------------------------------

PARTS = ["device", "scorer", "head", "update", "attention", "generate"]
ABSENT = [
    "trl",
    "vllm",
    "deepspeed",
    "hydra",
    "omegaconf",
    "datasets",
    "accelerate",
    "peft",
    "wandb",
    "pyarrow",
    "requests",
    "psutil",
]
HIDING = """
import sys
class Hiding:  # as on a machine where these were never installed
    def __init__(self, finder):
        self.find_distributions = finder.find_distributions
        self.find = finder.find_spec
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else self.find(name, path, target)
sys.meta_path = [Hiding(f) if hasattr(f, "find_distributions") else f for f in sys.meta_path]
"""


def bench_gpu(
    folder: Path, *words: str, absent: list[str], devices: str = ""
) -> tuple[int, list[dict], list[str]]:
    """Return the exit code, the JSON lines and the other lines of a run without some packages."""
    (folder / "sitecustomize.py").write_text(HIDING.format(names=absent))
    root = str(SCRIPTS.parent)
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{root}", "CUDA_VISIBLE_DEVICES": devices}
    command = [sys.executable, str(SCRIPTS / "bench_gpu.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000, env=environment, check=False)
    lines = done.stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return done.returncode, found, [line for line in lines if not line.startswith("{")]


def test_bench_gpu_tries_every_part_with_torch_and_transformers_alone(tmp_path: Path):
    code, (surroundings, *lines), text = bench_gpu(tmp_path, "--tiny", absent=ABSENT)
    assert code == 0, (lines, text)
    assert surroundings["device"] == "CPU"
    measured = [line for line in lines if "seconds" in line]
    assert {line["part"] for line in measured} == set(PARTS)
    # A CPU has no kernel of cuDNN: those cases say so, and the ones after them were measured.
    failed = [line for line in lines if "failed" in line]
    assert failed
    assert all("No viable backend" in line["failed"] for line in failed)
    assert {line["part"] for line in failed} == {"attention"}
    (exact,) = (line for line in lines if line["case"] == "against float64")
    assert 0 < exact["mean_difference"] < 0.01  # products are rounded to bfloat16: 2^-8 of logits of about 1
    assert any(line.startswith("COMPUTE_SHARE") and "not in the table" in line for line in text)
    assert any(line.startswith("LINK_SHARE") and "two GPUs" in line for line in text)


@pytest.mark.gpu
def test_bench_gpu_measures_memory_on_a_gpu(tmp_path: Path):
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    code, (_, *lines), _ = bench_gpu(tmp_path, "--tiny", absent=ABSENT, devices=devices)
    assert code == 0
    assert {line["part"] for line in lines if line.get("peak_gib", 0) > 0} == set(PARTS)
    assert any("context_gib" in line for line in lines)


def test_a_part_of_bench_gpu_that_cannot_run_says_so_and_the_next_one_runs(tmp_path: Path):
    words = ["--tiny", "--parts", "generate", "device"]
    code, (_, *lines), _ = bench_gpu(tmp_path, *words, absent=[*ABSENT, "transformers"])
    assert code == 1
    assert lines[0] == {"part": "generate", "case": "rest", "failed": "its process ended with 1, see above"}
    assert {line["part"] for line in lines[1:]} == {"device"}
    assert any("seconds" in line for line in lines[1:])


def test_bench_gpu_ends_a_part_whose_time_is_over(tmp_path: Path):
    code, (_, line), text = bench_gpu(
        tmp_path, "--tiny", "--parts", "device", "--minutes", "0.001", absent=ABSENT
    )
    assert code == 1
    assert line == {"part": "device", "case": "rest", "failed": "its 0 s are over: more --minutes"}
    assert any("its 0 s are over" in row for row in text)


def test_bench_gpu_refuses_a_cpu_in_a_sentence():
    command = [sys.executable, str(SCRIPTS / "bench_gpu.py")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000, env=environment, check=False)
    assert done.returncode == 2
    assert "torch sees no GPU" in done.stderr
    assert "--tiny" in done.stderr


@pytest.fixture(scope="module")
def gpu_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gpu", SCRIPTS / "bench_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_constants_follow_from_what_was_measured(gpu_script: ModuleType):
    from rlt.surroundings.gpus import GPUS

    h200 = GPUS["h200-141g"]  # 989e12 operations and 4.8e12 bytes a second
    lines = [
        {"part": "scorer", "case": "a", "seconds": 4.0, "operations_per_second": 494.5e12},
        {"part": "update", "case": "b", "seconds": 4.0, "operations_per_second": 395.6e12},
        {"part": "update", "case": "c", "masked": True, "seconds": 9.0, "operations_per_second": 98.9e12},
        {"part": "head", "case": "d", "seconds": 1.0, "operations_per_second": 800e12},
        {"part": "update", "case": "e", "failed": "OutOfMemoryError: …"},
        {"part": "device", "case": "weights read", "seconds": 1.0, "bytes_per_second": 2.4e12},
        {"part": "device", "case": "host to device", "seconds": 1.0, "bytes_per_second": 10e9},
        {"part": "device", "case": "device to host", "seconds": 1.0, "bytes_per_second": 6e9},
        # 50 steps of 40 ms; 24 GB at 2.4 TB/s are read in 10 ms, so 30 ms are left.
        {"part": "generate", "case": "1 rows", "seconds": 2.0, "steps": 50, "weights": 24e9},
    ]
    found = gpu_script.constants([gpu_script.with_share(line, h200) for line in lines], h200)
    assert found["COMPUTE_SHARE"] == pytest.approx([0.5, 0.4])  # without masks, heads and failures
    assert found["BANDWIDTH_SHARE"] == pytest.approx([0.5])
    assert found["EAGER_TICK"] == pytest.approx([0.030])
    assert found["HOST_LINK"] == [10e9, 6e9]
    assert gpu_script.verdict(0.35, found["COMPUTE_SHARE"]) == "correct to 0.45"
    assert gpu_script.verdict(0.03, found["EAGER_TICK"]) == "keep"
    assert gpu_script.verdict(20e9, found["HOST_LINK"]) == "correct to 8e+09"
    assert gpu_script.verdict(0.6, [0.52, 0.6]) == "keep"
