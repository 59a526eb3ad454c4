"""The quickstart from end to end, shrunk: every command runs for real, what it learns is not judged here."""

import json
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from rlt.errors import RLTError
from rlt.quickstart.main import BASE, main
from rlt.quickstart.report import RESULT
from rlt.quickstart.stages import choose_backend, run_stage, run_to_end
from rlt.surroundings.leaving import run_command

SMALL = (
    "trainer.max_steps=2",
    "train_batch_size=8",
    "per_device_train_batch_size=8",
    "num_generations=4",
    "evaluation.num_generations=2",
    "pipeline.steps.traces_before_rl.data.subset.n=8",
    "pipeline.steps.traces_after_rl.data.subset.n=8",
)


@pytest.mark.slow
def test_every_step_runs_and_leaves_its_files(tmp_path):
    base = replace(BASE, steps=5, batch_size=8)
    words = ["--output", str(tmp_path), "--seed", "3", "--backend", "transformers", "--problems", "2", *SMALL]
    assert main(words, base) == 1  # five steps teach nothing, and the report says so
    directory = tmp_path / "seed_3"
    result = json.loads((directory / RESULT).read_text())
    teacher, students = result["teacher"], result["students"]
    assert (teacher["step"], teacher["num_problems"], teacher["num_samples"]) == (2, 2, 2)
    assert result["is_real"] is False
    assert teacher["changes"]["closes its tag"]["before"] < 0.95
    assert list(students["accuracy"]) == ["base", "taught before RL", "taught after RL"]
    answers = (directory / "students/answers_after_rl/samples.jsonl").read_text().splitlines()
    right = [json.loads(line)["correct"] for line in answers]
    assert students["accuracy"]["taught after RL"]["mean"] == sum(right) / len(right)
    assert len(right) == 2 * 8
    for name in (
        "quickstart.md",
        "quickstart.png",
        "base/config.json",
        "pre_rl_model/config.json",
        "teacher_rl/run.json",
        "students/traces_before_rl/traces.jsonl",
        "students/student_after_rl/config.json",
    ):
        assert (directory / name).is_file(), name
    for name in ("teacher_rl", "students/student_after_rl"):
        assert (directory / name / "README.md").read_text().count("docs/claims.md") == 1


def test_a_stage_that_fails_is_one_sentence_with_its_log(tmp_path):
    with pytest.raises(
        RLTError, match=r"exit code 2; its log is .*train\.log:\n  \./launch\.sh 1 no_such_file"
    ):
        run_stage(["./launch.sh", "1", "no_such_file.yaml"], tmp_path / "train.log")


def test_a_wrong_override_fails_before_anything_is_made(tmp_path, capsys):
    assert run_command(main, ["--output", str(tmp_path), "trainer.max_stepz=3"]) == 2
    assert "max_steps" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_too_few_problems_are_refused_before_anything_is_made(tmp_path, capsys):
    assert run_command(main, ["--output", str(tmp_path), "--problems", "1"]) == 2
    assert capsys.readouterr().err == (
        "error: --problems=1 is too few: an interval over held-out problems needs at least 2\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    before = psutil.Process().children()
    with (tmp_path / "log").open("wb") as log:
        assert (
            run_to_end([sys.executable, "-c", "import time; time.sleep(600)"], timeout=1, output=log) is None
        )
    assert psutil.Process().children() == before


def test_transformers_is_always_possible():
    assert choose_backend("transformers").name == "transformers"


def test_choosing_a_backend_does_not_import_vllm():
    code = (
        "import sys; from rlt.quickstart.stages import choose_backend; choose_backend('auto');"
        "sys.exit('vllm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=1000, check=False).returncode == 0
