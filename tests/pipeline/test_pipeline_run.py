"""Pipelines as a user types them: real launchers, real stages, tiny models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from helpers.moments import Moment, is_pending

from rlt.errors import Paused
from rlt.io import describe_input
from rlt.rundir.run_record import read_run

ROOT = Path(__file__).parents[2]
ENV = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.slow


def write(path: Path, steps: dict, **every) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "stage": "pipeline",
        "model_name_or_path": None,
        "dataset_id_or_path": "none",
        "output_dir": "out",
    }
    fields["pipeline"] = {"every": every, "steps": steps}
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return path


def launch(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "launch.sh"), *map(str, words)]
    return subprocess.run(
        command, env={**os.environ, **ENV}, capture_output=True, text=True, timeout=1000, check=False
    )


def statuses(output: Path) -> dict[str, str]:
    record = json.loads((output / "pipeline.json").read_text())
    return {step["name"]: step["status"] for step in record["steps"]}


@pytest.fixture(scope="module")
def chain(tiny_teacher: Path, tiny_student: Path, toy_problems: Path, tmp_path_factory) -> Path:
    """Return the folder of a chain that has run: `run_cfg/chain.yaml`, `out/`, `first.txt`."""
    folder = tmp_path_factory.mktemp("chain")
    shutil.copy(toy_problems, folder / "problems.jsonl")
    steps = {
        "student": {  # written first, runs last
            "run_cfg": "student_sft",
            "model_name_or_path": str(tiny_student),
            "dataset_id_or_path": "{chosen}/traces.jsonl",
            "data": {"max_length": 512},
            "trainer": {"num_train_epochs": 1, "save_steps": 0},
            "train_batch_size": 4,
            "per_device_train_batch_size": 2,
        },
        "traces": {
            "run_cfg": "collect_traces",
            "model_name_or_path": str(tiny_teacher),
            "dataset_id_or_path": str(folder / "problems.jsonl"),
            "generation.backend": "transformers",
            "max_prompt_length": 200,
            "max_completion_length": 12,
            "collect.num_samples": 2,
        },
        "chosen": {
            "run_cfg": "select_traces",
            "dataset_id_or_path": "{traces}/traces.jsonl",
            "select.rule": "none",
        },
    }
    every = {"model.dtype": "float32", "layout.student_prompt": "default", "report_to": None}
    run_file = write(folder / "run_cfg/chain.yaml", steps, **every)
    done = launch(run_file, f"output_dir={folder / 'out'}")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "first.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def moved(chain: Path, tmp_path: Path) -> Path:
    """Return a copy of the chain's folder at another place."""
    return shutil.copytree(chain, tmp_path / "elsewhere")


def test_a_chain_runs_in_order_each_step_reading_the_one_before(chain):
    out = chain / "out"
    assert list(statuses(out).items()) == [(n, "finished") for n in ("traces", "chosen", "student")]
    for name in ("traces", "chosen", "student"):
        assert read_run(out / name)["command"].startswith("./launch.sh "), name
        assert (out / "logs" / f"{name}.log").stat().st_size
    read = read_run(out / "student")["inputs"]["dataset"]["sha256"]
    assert read == describe_input(str(out / "chosen/traces.jsonl"))["sha256"]
    head, _, *table = (chain / "first.txt").read_text().splitlines()[-5:]
    assert head.split() == ["|", "step", "|", "stage", "|", "status", "|", "time", "|", "directory", "|"]
    assert [line.split()[1] for line in table] == ["traces", "chosen", "student"]
    assert all("| finished |" in line for line in table)


def test_finished_steps_stand_wherever_they_lie(moved):
    before = {path: path.stat().st_mtime_ns for path in (moved / "out").glob("*/run.json")}
    done = launch(moved / "run_cfg/chain.yaml", f"output_dir={moved / 'out'}")
    assert done.returncode == 0, done.stderr
    assert set(statuses(moved / "out").values()) == {"skipped"}
    assert done.stderr.count("and nothing has changed since") == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_changed_step_runs_again_and_the_next_only_if_its_input_differs(moved):
    out = moved / "out"
    change = "pipeline.steps.chosen.seed=7"  # which a selection of all does not depend on
    dry = launch(moved / "run_cfg/chain.yaml", f"output_dir={out}", change, "--dry-run")
    assert "chosen runs again: seed was 42 and is 7" in dry.stdout
    assert "student depends on what chosen will have written" in dry.stdout
    assert not (out / "chosen.1").exists()
    done = launch(moved / "run_cfg/chain.yaml", f"output_dir={out}", change)
    assert done.returncode == 0, done.stderr
    assert statuses(out) == {
        "traces": "skipped",
        "chosen": "finished",
        "student": "skipped",
    }
    assert "chosen runs again: seed was 42 and is 7" in done.stderr
    assert read_run(out / "chosen.1")["seed"] == 42
    assert read_run(out / "chosen")["seed"] == 7


def test_forked_steps_write_what_launched_ones_do(chain, tmp_path):
    done = launch(chain / "run_cfg/chain.yaml", f"output_dir={tmp_path / 'out'}", "pipeline.fork=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(statuses(tmp_path / "out").values()) == {"finished"}
    launched, forked = chain / "out", tmp_path / "out"
    texts = [(out / "traces/traces.jsonl").read_text() for out in (launched, forked)]
    assert texts[0] == texts[1]
    weights = [next((out / "student").glob("*.safetensors")).read_bytes() for out in (launched, forked)]
    assert weights[0] == weights[1]
    assert read_run(forked / "student")["command"].startswith("./launch.sh ")


@pytest.mark.parametrize("fork", ["false", "true"])
def test_a_step_that_fails_ends_the_pipeline_with_its_reason(chain, tmp_path, fork):
    unscored = {"run_cfg": "select_traces", "dataset_id_or_path": str(chain / "out/traces/traces.jsonl")}
    after = {"run_cfg": "select_traces", "dataset_id_or_path": "{best}/traces.jsonl"}
    run_file = write(
        tmp_path / "run_cfg/fails.yaml", {"best": {**unscored, "select.rule": "best"}, "after": after}
    )
    done = launch(run_file, f"output_dir={tmp_path / 'out'}", f"pipeline.fork={fork}")
    assert done.returncode == 1
    assert "error: step `best` ended with exit code 3 (DataError: " in done.stderr
    assert "no column `score`" in done.stderr
    assert statuses(tmp_path / "out") == {"best": "failed", "after": "waiting"}
    assert "no column `score`" in (tmp_path / "out/logs/best.log").read_text()


def test_an_interrupted_training_goes_on_from_its_checkpoint(chain, tiny_student, tmp_path):
    student = {
        "run_cfg": "student_sft",
        "model_name_or_path": str(tiny_student),
        "dataset_id_or_path": str(chain / "out/chosen/traces.jsonl"),
        "layout.student_prompt": "default",
        "model.dtype": "float32",
        "data.max_length": 512,
        "train_batch_size": 2,
        "per_device_train_batch_size": 2,
        "trainer": {"max_steps": 60, "save_steps": 2, "save_total_limit": 2},
        "report_to": None,
    }
    words = [write(tmp_path / "run_cfg/long.yaml", {"student": student}), f"output_dir={tmp_path / 'out'}"]
    student_run = tmp_path / "out/student"
    after_a_checkpoint = Moment(str(student_run / "metrics.jsonl"), lines=3)
    process, training = begin(words, tmp_path / "log.txt", after_a_checkpoint)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    while not is_pending(training.pid, signal.SIGTERM):
        time.sleep(0.05)
    training.resume()
    assert process.wait(timeout=1000) == 128 + signal.SIGTERM
    assert not psutil.wait_procs(children, timeout=1000)[1]
    assert statuses(tmp_path / "out") == {"student": "interrupted"}
    assert read_run(tmp_path / "out/student")["status"] == "interrupted"

    done = launch(*words)
    assert done.returncode == 0, done.stderr
    assert "student continues from its last checkpoint: the last run is interrupted" in done.stderr
    run = read_run(tmp_path / "out/student")
    assert (run["status"], run["earlier"][0]["status"]) == ("finished", "interrupted")
    steps = [json.loads(line)["step"] for line in (tmp_path / "out/student/metrics.jsonl").open()]
    assert max(steps) == 60
    assert launch(*words).stderr.count("student skipped") == 1


@pytest.mark.long
@pytest.mark.parametrize("through", ["pipeline", "launcher"])
def test_a_run_that_is_asked_to_save_goes_on_after_that_step(chain, tiny_student, tmp_path, through):
    """It is asked while it loads, so the first step is the last; two processes agree on that."""
    student = {
        "run_cfg": "student_sft",
        "model_name_or_path": str(tiny_student),
        "dataset_id_or_path": str(chain / "out/chosen/traces.jsonl"),
        "layout.student_prompt": "default",
        "model.dtype": "float32",
        "data.max_length": 512,
        "train_batch_size": 2,
        "per_device_train_batch_size": 1,
        "trainer.max_steps": 300,
        "trainer.save_steps": 0,
        "report_to": "null",
    }
    run = tmp_path / "out/student"
    if through == "pipeline":
        file = write(tmp_path / "run_cfg/long.yaml", {"student": {**student, "gpus": 2, "strategy": "ddp"}})
        words, number = [str(file), f"output_dir={tmp_path / 'out'}"], signal.SIGUSR1
    else:
        words = ["2", "ddp", *(f"{key}={value}" for key, value in student.items())]
        words += [f"output_dir={run}", "trainer.save_on_sigterm=true"]
        number = signal.SIGTERM
    console, loading = tmp_path / "log.txt", Moment(str(run / "now.json"))
    process, training = begin(words, console, loading)
    process.send_signal(number)
    while "saving a checkpoint after this step" not in console.read_text():
        time.sleep(0.05)
    training.resume()
    assert process.wait(timeout=1000) == Paused.exit_code, console.read_text()
    assert f"{number.name}: saving a checkpoint after this step, then ending" in console.read_text()
    assert "ChildFailedError" not in console.read_text()
    ended = read_run(run)
    assert ended["status"] == "paused"
    assert f"{run / 'checkpoint-1'} is whole" in ended["error"]
    assert (run / "checkpoint-1/trainer_state.json").is_file()
    assert not (run / "stop").exists()
    assert not (run / "model.safetensors").exists()


def begin(
    words: Sequence[object], log: Path, moment: Moment
) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Return a launcher that runs, and its training, which has stopped itself at a moment."""
    command, env = [str(ROOT / "launch.sh"), *map(str, words)], {**os.environ, **ENV, **moment.environment()}
    with log.open("wb") as console:
        process = subprocess.Popen(command, env=env, stdout=console, stderr=console)
    while True:
        assert process.poll() is None, log.read_text()
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.status() == psutil.STATUS_STOPPED:
                    return process, child
        time.sleep(0.05)


def test_lineage_of_a_trace_after_all_directories_have_moved(moved, tiny_teacher):
    row = json.loads((moved / "out/chosen/traces.jsonl").read_text().splitlines()[0])
    asked = f"{row['problem_id']}:{row['sample_index']}"
    command = [sys.executable, "-m", "rlt.lineage", asked, str(moved / "out"), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert told["table"] == str(moved / "out/traces/traces.jsonl")
    assert told["problem"]["question"] == row["question"]
    assert told["selected"][-1]["selected"] is row["selected"]
    (student,) = [reader for reader in told["readers"] if reader["stage"] == "student_sft"]
    assert student["directory"] == str(moved / "out/student")
    assert student["trained"] is row["selected"]
    assert told["teacher"]["sha256"] == describe_input(str(tiny_teacher))["sha256"]
    assert told["teacher"]["end"].endswith(f"was written by no run under {moved / 'out'}.")
