import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlt.errors import ConfigError, DataError
from rlt.rundir.run_record import (
    COMMAND_VARIABLE,
    GPUS_VARIABLE,
    RunRecord,
    command_line,
    finish_abandoned,
    library_versions,
    only_run_in,
    read_run,
)

SECRET = "hf_abcdefghijklmnopqrstuv"


def start(directory: Path, **changes):
    return RunRecord.start(directory, **{"stage": "teacher_sft", "seed": 3, "inputs": {}, **changes})


def test_a_run_is_recorded_while_it_lasts_and_when_it_ends(tmp_path, monkeypatch):
    data = tmp_path / "rows.jsonl"
    data.write_text("{}\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(GPUS_VARIABLE, "4")
    with start(tmp_path / "run", inputs={"dataset": str(data), "student": None}) as record:
        running = json.loads((tmp_path / "run" / "run.json").read_text())
        assert (running["status"], running["ended"]) == ("running", None)
        record.update(results={"reward": float("nan"), "r_ss": -0.5})
        record._clock -= 1800  # half an hour ago
    run = read_run(tmp_path / "run")
    assert (run["status"], run["stage"], run["seed"], run["processes"]) == ("finished", "teacher_sft", 3, 2)
    # sha256 of the three bytes `{}` and newline, by sha256sum
    sha256 = "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
    assert run["inputs"] == {"dataset": {"file": str(data), "bytes": 3, "sha256": sha256}}
    assert run["results"] == {"reward": None, "r_ss": -0.5}
    assert run["gpu_hours"] == pytest.approx(2.0, abs=0.1)  # 4 GPUs for half an hour
    assert run["started"] <= run["ended"]
    assert run["ended"].endswith("Z")
    assert run["versions"]["transformers"] == library_versions()["transformers"]
    assert run["machine"]["cpus"] >= 1
    assert not list((tmp_path / "run").glob(".*"))


def test_an_error_travels_on_and_is_recorded_in_one_line_without_secrets(tmp_path):
    with pytest.raises(ConfigError), start(tmp_path):
        raise ConfigError(f"no access with token={SECRET}\nsecond line")
    run = read_run(tmp_path)
    assert (run["status"], run["error"]) == ("failed", "ConfigError: no access with token=***")


def test_ctrl_c_is_interrupted_and_exit_code_0_is_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt), start(tmp_path / "a"):
        raise KeyboardInterrupt
    assert read_run(tmp_path / "a")["status"] == "interrupted"
    with pytest.raises(SystemExit), start(tmp_path / "b"):
        raise SystemExit(0)
    assert read_run(tmp_path / "b")["status"] == "finished"
    with pytest.raises(SystemExit), start(tmp_path / "c"):
        raise SystemExit(2)
    assert read_run(tmp_path / "c")["status"] == "failed"


def test_other_ranks_write_nothing(tmp_path):
    with start(tmp_path / "run", is_main=False) as record:
        record.update(results={"a": 1})
    assert not (tmp_path / "run").exists()


def test_neither_environment_nor_secret_arguments_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    command = f"./launch.sh x.yaml trainer_args={{hub_token: {SECRET}}} trainer_args.token=mysecret1"
    monkeypatch.setenv(COMMAND_VARIABLE, command)
    with start(tmp_path):
        pass
    text = (tmp_path / "run.json").read_text()
    assert not any(secret in text for secret in (SECRET, "mysecret1", "0123456789abcdef", "WANDB"))
    assert "x.yaml" in text


def test_the_command_is_this_process_without_a_launcher(monkeypatch):
    code = "from rlt.rundir.run_record import command_line; print(command_line())"
    done = subprocess.run(
        [sys.executable, "-c", code, "a b", "k=1"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("python -c ")
    assert done.stdout.rstrip().endswith("'a b' k=1")
    monkeypatch.setenv(COMMAND_VARIABLE, "./launch.sh 8 x.yaml")
    assert command_line() == "./launch.sh 8 x.yaml"


def test_a_killed_run_is_told_apart_and_can_be_closed(tmp_path):
    code = (
        "import os, signal, sys\nfrom rlt.rundir.run_record import RunRecord\n"
        f"RunRecord.start({str(tmp_path)!r}, stage='teacher_rl', seed=1, inputs={{}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
    assert read_run(tmp_path)["status"] == "interrupted"
    assert finish_abandoned(tmp_path, "ended by the launcher") is True
    closed = json.loads((tmp_path / "run.json").read_text())
    assert (closed["status"], closed["error"]) == ("interrupted", "ended by the launcher")
    assert closed["ended"]
    assert finish_abandoned(tmp_path) is False
    assert finish_abandoned(tmp_path / "nowhere") is False


def test_a_killed_run_that_nobody_has_reaped_is_gone(tmp_path):
    """The training's processes become the launcher's grandchildren, which only pid 1 could reap."""
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record = start(tmp_path)
    record.update(process={**record.fields["process"], "pid": killed.pid})
    assert finish_abandoned(tmp_path) is False
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
    assert finish_abandoned(tmp_path, "ended by SIGTERM to the launcher") is True
    closed = json.loads((tmp_path / "run.json").read_text())
    assert (closed["status"], closed["error"]) == ("interrupted", "ended by SIGTERM to the launcher")
    assert closed["ended"]
    killed.wait()


def test_a_living_run_is_not_closed(tmp_path):
    start(tmp_path)
    assert finish_abandoned(tmp_path) is False
    assert read_run(tmp_path)["status"] == "running"


def test_earlier_runs_in_the_directory_are_remembered(tmp_path):
    with pytest.raises(ValueError, match="first"), start(tmp_path):
        raise ValueError("first")
    with start(tmp_path):
        pass
    with start(tmp_path):
        pass
    assert [run["status"] for run in read_run(tmp_path)["earlier"]] == ["failed", "finished"]


def test_a_checkout_is_recorded_with_its_commit_and_whether_it_was_changed(tmp_path):
    """In a real repository that holds a copy of the package."""
    package = tmp_path / "rlt"
    package.mkdir()
    for name in ("__init__.py", "errors.py", "io.py", "text.py"):
        (package / name).write_text((Path(__file__).parents[2] / "rlt" / name).read_text())
    source = Path(__file__).parents[2] / "rlt" / "rundir"
    (package / "rundir").mkdir()
    for file in source.glob("*.py"):
        (package / "rundir" / file.name).write_text(file.read_text())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    code = "import json; from rlt.rundir.run_record import code_version; print(json.dumps(code_version()))"

    def version() -> dict:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / "notes.txt").write_text("not code")
    assert (version()["commit"], version()["dirty"]) == (head, False)
    (package / "errors.py").open("a").write("# changed\n")
    assert version()["dirty"] is True


def test_a_directory_without_a_run_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="not a run directory"):
        read_run(tmp_path)


def test_a_directory_belongs_to_one_run_at_a_time(tmp_path):
    code = f"""
import time
from rlt.rundir.run_record import RunRecord, only_run_in
with only_run_in({str(tmp_path)!r}):
    RunRecord.start({str(tmp_path)!r}, stage="teacher_rl", seed=1, inputs={{}})
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=rf"is in use by another run \(process {holder.pid} on "),
            only_run_in(tmp_path),
        ):
            pass
        holder.kill()
    with only_run_in(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(
            ConfigError, match=r"file/run` cannot hold a run \(.*: Not a directory\); give a folder"
        ),
        only_run_in(tmp_path / "file" / "run"),
    ):
        pass
    with only_run_in(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
