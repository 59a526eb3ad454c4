"""train.py as a user meets it: a process of its own, quick answers, honest exit codes."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def train(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        *(["-X", "importtime"] if env.pop("importtime", "") else []),
        str(ROOT / "train.py"),
    ]
    return subprocess.run(
        [*command, *words],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("word", ["learning_rat=1", "trainer.bta=1", "num_generations=0", "trainer_args.x=1"])
def test_wrong_setting_fails_in_seconds_without_torch(place, teacher_rl, word):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = train(*teacher_rl, word, cwd=place, importtime="yes")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3  # seconds
    assert done.returncode == 2
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, flags=re.MULTILINE))
    assert "omegaconf" in imported
    assert not imported & {"torch", "transformers", "trl", "datasets", "numpy", "vllm"}
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(errors) == 1
    assert errors[0].startswith("error: `")


def test_only_the_first_rank_speaks(place):
    done = train("learning_rat=1", cwd=place, RANK="1", LOCAL_RANK="1", WORLD_SIZE="2")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_world_size_reaches_the_batch_rule(place, teacher_rl):
    assert "x 3" in train(*teacher_rl, "--dry-run", cwd=place, WORLD_SIZE="3").stderr
    assert train(*teacher_rl, "--dry-run", cwd=place, WORLD_SIZE="4").returncode == 0


def test_dry_run_prints_what_would_run_and_writes_nothing(place, teacher_rl):
    before = sorted(place.rglob("*"))
    done = train(*teacher_rl, "trainer.beta=0", "--dry-run", cwd=place)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["trainer"]["ref_sync_steps"] == 0
    assert done.stderr.splitlines() == [
        "WARNING: trainer.ref_sync_steps=32 is switched off: trainer.beta=0 uses no reference model."
    ]
    assert sorted(place.rglob("*")) == before


def test_cfg_prints_the_configuration_or_a_part(place):
    done = train("run_cfg=teacher_rl", "--cfg", "job", "--package", "generation.backend", cwd=place)
    assert (done.returncode, done.stdout) == (0, "vllm\n")
    whole = train("--cfg", "run_cfg=teacher_sft", cwd=place)
    assert yaml.safe_load(whole.stdout)["stage"] == "teacher_sft"


def test_help_and_explain(place):
    assert "run_cfg=NAME" in train("--help", cwd=place).stdout
    assert "trainer.beta" in train("--explain", "trainer", cwd=place).stdout
    assert train("--explain", "trainr", cwd=place).returncode == 2
    wrong = train("--recipe", cwd=place)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


def test_launcher_words_are_answered(place):
    done = train("run_cfg=teacher_rl", "offload", cwd=place)
    assert done.returncode == 2
    assert "./launch.sh" in done.stderr
