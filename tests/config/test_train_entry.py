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
        timeout=1000,
        check=False,
    )


FLASH = "model.attn_implementation=flash_attention_2"


@pytest.mark.parametrize(
    "word", ["learning_rat=1", "trainer.bta=1", "num_generations=0", "trainer_args.x=1", FLASH]
)
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


@pytest.mark.slow
def test_the_number_of_processes_reaches_the_batch_rule(place, teacher_rl):
    assert "x 3" in train(*teacher_rl, "--dry-run", cwd=place, RLT_NUM_PROCESSES="3").stderr
    four = train(*teacher_rl, "--dry-run", cwd=place, RLT_NUM_PROCESSES="4").stderr
    assert "train_batch_size" not in four


@pytest.fixture
def real_rl(tiny_teacher, tiny_student, toy_problems) -> list[str]:
    """Return a command line of teacher_rl with models and data that training could use."""
    files = [f"model_name_or_path={tiny_teacher}", f"student_model={tiny_student}"]
    lengths = ["max_prompt_length=300", "max_completion_length=100", "train_batch_size=64"]
    return ["run_cfg=teacher_rl", *files, *lengths, f"dataset_id_or_path={toy_problems}"]


@pytest.mark.slow
def test_dry_run_prints_what_would_run_checks_the_text_and_writes_nothing(place, real_rl):
    before = sorted(place.rglob("*"))
    words = [*real_rl, "num_generations=16", "layout.student_prompt=default", "trainer.beta=0"]
    done = train(*words, "generation.backend=transformers", "--dry-run", cwd=place)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["trainer"]["ref_sync_steps"] == 0
    assert done.stderr.startswith(
        "WARNING: trainer.ref_sync_steps=32 is switched off: trainer.beta=0 uses no reference model."
    )
    assert "on GPUs: sdpa (auto: flash-attn is not installed)" in done.stderr, done.stderr
    assert "prompt tokens of 12 rows, limit 300 (max_prompt_length): 0 over" in done.stderr
    assert "tokenizers, templates and rows are as teacher_rl needs them" in done.stderr
    assert sorted(place.rglob("*")) == before


@pytest.mark.slow
def test_dry_run_refuses_text_that_training_could_not_use(place, real_rl):
    words = [*real_rl, "num_generations=4", "layout.student_prompt=default"]
    done = train(*words, "generation.backend=transformers", "--dry-run", cwd=place)
    assert done.returncode == 3
    assert "leaves 12 problems to train on, but one step needs" in done.stderr


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
