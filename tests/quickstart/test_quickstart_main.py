"""The quickstart from end to end, shrunk: every command runs for real, what it learns is not judged here."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rlt.errors import RLTError
from rlt.quickstart.base_model import BaseSettings
from rlt.quickstart.main import Options, main, run
from rlt.quickstart.stages import choose_backend, run_stage

SMALL = (
    "trainer.max_steps=2",
    "train_batch_size=8",
    "per_device_train_batch_size=8",
    "num_generations=4",
    "evaluation.num_generations=2",
)


@pytest.mark.slow
def test_every_step_runs_and_leaves_its_files(tmp_path):
    base = replace(BaseSettings(), steps=5, batch_size=8)
    options = Options(tmp_path, seed=3, backend="transformers", problems=4, overrides=SMALL, base=base)
    comparison = run(options)
    assert (comparison.step, comparison.num_problems, comparison.num_samples) == (2, 4, 2)
    # five steps teach nothing, and the report says so
    assert comparison.changes["closes its tag"].before < 0.95
    directory = tmp_path / "seed_3"
    assert json.loads((directory / "quickstart.json").read_text())["is_real"] is False
    for name in (
        "quickstart.md",
        "quickstart.png",
        "base/config.json",
        "pre_rl_model/config.json",
        "teacher_rl/run.json",
    ):
        assert (directory / name).is_file(), name


def test_a_stage_that_fails_is_one_sentence_with_its_log(tmp_path):
    with pytest.raises(
        RLTError, match=r"exit code 2; its log is .*train\.log:\n  \./launch\.sh 1 no_such_file"
    ):
        run_stage(["./launch.sh", "1", "no_such_file.yaml"], tmp_path / "train.log")


def test_a_wrong_override_fails_before_anything_is_made(tmp_path, capsys):
    assert main(["--output", str(tmp_path), "trainer.max_stepz=3"]) == 2
    assert "max_steps" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_transformers_is_always_possible():
    assert choose_backend("transformers").name == "transformers"


def test_choosing_a_backend_does_not_import_vllm():
    code = (
        "import sys; from rlt.quickstart.stages import choose_backend; choose_backend('auto');"
        "sys.exit('vllm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
