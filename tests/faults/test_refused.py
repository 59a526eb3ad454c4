"""Runs that must not start: one sentence, before anything is loaded."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.stage_runs import later_win, run_here

from rlt.errors import RLTError
from rlt.launch.main import main
from rlt.rundir.run_record import only_run_in


def scenario(what: str, *words: str, code: int, says: str):
    """Return a parameter whose identifier is what goes wrong."""
    return pytest.param(words, code, says, id=what, marks=pytest.mark.fault(what, f"refused: “{says}”"))


@pytest.fixture
def at_home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with broken files of every kind; return it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    good = (models / "problems.jsonl").read_text().splitlines()
    files = {
        "no_column.jsonl": ['{"question": "1+1?"}'],
        "bad_row.jsonl": [*good[:6], '{"question": "1+1?", "solution": ""}', *good[6:]],
        "cut_line.jsonl": [*good[:3], good[3][:20]],
        "empty.jsonl": [],
        "few.jsonl": good[:1],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(line + "\n" for line in lines))
    (tmp_path / "a_file").write_text("")
    shutil.copytree(models / "teacher", tmp_path / "no_weights")
    (tmp_path / "no_weights" / "model.safetensors").unlink()
    shutil.copytree(models / "teacher", tmp_path / "cut_weights")
    weights = tmp_path / "cut_weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    shutil.copytree(models / "teacher", tmp_path / "pointer")
    (tmp_path / "pointer" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    shutil.copytree(models / "teacher", tmp_path / "no_shard")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-2.safetensors"}}
    (tmp_path / "no_shard" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "no_model").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        scenario("a misspelt setting", "learning_rat=1", code=2, says="did you mean `learning_rate`"),
        scenario("a value of the wrong type", "seed=many", code=2, says="seed"),
        scenario("a batch that does not divide", "train_batch_size=5", code=2, says="train_batch_size"),
        scenario("a column is missing", "dataset_id_or_path=no_column.jsonl", code=3, says="solution"),
        scenario("a bad row", "dataset_id_or_path=bad_row.jsonl", code=3, says="line 7"),
        scenario("a half-written line", "dataset_id_or_path=cut_line.jsonl", code=3, says="line 4"),
        scenario("an empty dataset", "dataset_id_or_path=empty.jsonl", code=3, says="empty"),
        scenario("a file in the place of the run", "output_dir=a_file/run", code=2, says="a_file is a file"),
        scenario("a folder that is no model", "student_model=no_model", code=2, says="without config.json"),
        scenario("a model without weights", "student_model=no_weights", code=2, says="holds no weights"),
        scenario("a shard is missing", "student_model=no_shard", code=2, says="lacks model-00002-of-2"),
        scenario(
            "weights that are cut", "model_name_or_path=cut_weights", code=2, says="where its head says"
        ),
        scenario("git-lfs left a pointer", "model_name_or_path=pointer", code=2, says="a pointer of git-lfs"),
        scenario("nothing to resume from", "resume_from=latest", code=2, says="no whole checkpoint"),
        scenario(
            "a server that others reach, without a key",
            "generation.servers=[http://node-2:8000]",
            "generation.backend=vllm",
            code=2,
            says="there is no key",
        ),
    ],
)
def test_what_the_launcher_sees(at_home, local_words, words, code, says, capsys):
    usual = [*local_words[1:], f"output_dir={at_home / 'run'}"]
    assert main(["launch.sh", local_words[0], *later_win(*usual, *words)]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert not (at_home / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        scenario("too few problems for a step", "dataset_id_or_path=few.jsonl", code=3, says="add problems"),
        scenario("no prompt fits", "max_prompt_length=8", code=3, says="max_prompt_length"),
        scenario("a server that is not there", "server=closed", code=5, says="Connection refused"),
        scenario("another program at the server's port", "server=other", code=5, says="HTTP 404"),
        pytest.param(
            ["server=silent"],
            *(5, "did not answer"),
            id="silent",
            marks=[
                pytest.mark.long,  # a minute
                pytest.mark.fault("a server that never answers", "refused after a minute: “did not answer”"),
            ],
        ),
    ],
)
def test_what_the_training_sees_before_it_begins(at_home, local_words, words, code, says):
    usual = ["run_cfg=teacher_rl", *local_words[1:], "output_dir=run"]
    with server_of(words[0]) as changes, pytest.raises(RLTError) as refused:
        run_here(later_win(*usual, *changes))
    assert refused.value.exit_code == code
    assert says in str(refused.value)
    assert json.loads(Path("run/run.json").read_text())["status"] == "failed"
    assert not list(Path("run").glob("checkpoint-*"))


@contextmanager
def server_of(word: str):
    """Yield the settings for a kind of server; other words are settings already."""
    key, _, kind = word.partition("=")
    if key != "server":
        yield [word]
        return
    settings = ["generation.backend=vllm", f"generation.request_timeout={3 if kind == 'silent' else 600}"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if kind == "silent":
            listener.listen()
        files = None
        if kind == "other":
            listener.close()
            files = http.server.ThreadingHTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
            threading.Thread(target=files.serve_forever, daemon=True).start()
        yield [*settings, f"generation.servers=[http://127.0.0.1:{port}]"]
        if files:
            files.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(
            count,
            marks=[
                *marks,
                pytest.mark.fault(
                    f"{count} process{'es' * (count > 1)} of a training find too few problems",
                    "the launcher has their exit code, and no traceback",
                ),
            ],
        )
        for count, marks in ((1, [pytest.mark.long]), (2, []))
    ],
)
def test_the_launcher_ends_with_the_training_s_exit_code(count, local_words, start_launcher):
    words = [*local_words, "train_batch_size=64"]
    launcher = start_launcher("launch.sh", str(count), *words, "ddp")
    assert launcher.wait() == 3, launcher.console()
    assert "Traceback" not in launcher.console()
    assert "leaves 12 problems" in (launcher.run / "logs" / "train.log").read_text()


@pytest.mark.fault("another run holds the directory", "refused: “in use by another run”")
def test_a_directory_in_use(at_home, local_words, capsys):
    with only_run_in(at_home / "run"):
        words = [*local_words, f"output_dir={at_home / 'run'}"]
        assert main(["launch.sh", *words]) == 2
    assert "is in use by another run" in capsys.readouterr().err


@pytest.mark.fault("the ports are taken", "refused: “generation.base_port”")
def test_ports_that_are_taken(at_home, rl_words, capsys):
    pytest.importorskip("vllm")  # that it is missing would be said first
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        words = [*rl_words, f"generation.base_port={other.getsockname()[1]}", f"output_dir={at_home / 'run'}"]
        assert main(["launch.sh", *words]) == 2
    assert "generation.base_port" in capsys.readouterr().err


@pytest.mark.fault("no room for the checkpoints", "refused: “has … of room, but the run writes …”")
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_no_room_for_the_checkpoints(at_home, local_words, capsys):
    with small_disk(at_home / "disk", megabytes=8):
        words = [*local_words, f"output_dir={at_home / 'disk' / 'run'}"]
        assert main(["launch.sh", *words]) == 2
        error = capsys.readouterr().err
        assert "of room, but the run writes up to" in error
        assert "save none with trainer.save_steps=0" in error
        assert not (at_home / "disk" / "run").exists()


@contextmanager
def small_disk(place: Path, megabytes: int):
    """Mount a file system of some megabytes; skip where that is not allowed."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
