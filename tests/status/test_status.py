"""`python -m rlt.status` over run directories of every state; tests/launch looks at a launched run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rlt.io import write_json
from rlt.rundir.now import Now
from rlt.rundir.processes import describe_process, write_processes
from rlt.status.__main__ import main
from rlt.status.look import look
from rlt.surroundings.leaving import run_command

GONE = 2**22 + 1  # above Linux's largest process id


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat(timespec="seconds")


def write_run(folder: Path, status: str, pid: int = GONE, **fields) -> Path:
    """Write the run.json of a run that began 100 seconds ago."""
    record = {
        "stage": "teacher_rl",
        "status": status,
        "started": ago(100),
        "ended": None if status == "running" else ago(10),
        "seconds": None if status == "running" else 90.0,
        "error": None,
        "process": {"host": socket.gethostname(), "pid": pid},
    }
    write_json(folder / "run.json", {**record, **fields})
    return folder


def write_metrics(folder: Path, steps: int) -> None:
    """Write steps of four seconds each, an evaluation, and a line that is being written."""
    took = {"time/step": 3.9, "time/generate": 2.25, "time/update": 1.5, "time/read": 0.001}
    took["perf/tokens_per_second"] = 1234.5
    rows = [{"step": n, "time": 4.0 * n, "loss": 0.5, "reward": -n / 8, **took} for n in range(1, steps + 1)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": steps, "time": 99.0, "eval_reward": 1}])
    (folder / "metrics.jsonl").write_text(text + '{"step": 99, "ti')


@pytest.fixture
def address():
    """Serve /health on this machine."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_running_run(tmp_path, address, capsys):
    write_run(tmp_path, "running", os.getpid())
    write_metrics(tmp_path, 20)
    Now(tmp_path).enter("generating", 21, 125)
    log = tmp_path / "logs" / "train.log"
    log.parent.mkdir()
    log.write_text("loading\n\x1b[31mstep 20/125\x1b[0m\rhub_token=hf_0123456789abcdefgh\n\n")
    dead = "http://127.0.0.1:1"
    servers = [describe_process("vLLM server 0", GONE, log=str(tmp_path / "no.log"), address=dead)]
    write_processes(tmp_path, [*servers, describe_process("training", os.getpid(), log=str(log))])
    (tmp_path / "config.yaml").write_text(
        f"generation:\n  servers: [{dead}]\nreward:\n  servers: [{address}]\n"
    )

    assert run_command(main, [str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["state"], told["step"], told["of"]) == ("running", 20, 125)
    assert 99 <= told["seconds"] < 1000
    assert told["doing"]["phase"] == "generating"
    assert told["seconds_per_step"] == 4.0
    assert told["seconds_left"] == pytest.approx(105 * 4, abs=5)
    assert told["metrics"].items() >= {"loss": 0.5, "reward": -2.5, "time/update": 1.5}.items()
    assert [(p["name"], p["alive"]) for p in told["processes"]] == [
        ("launcher", True),
        ("vLLM server 0", False),
        ("training", True),
    ]
    assert told["processes"][2]["last_line"] == "hub_token=***"
    assert told["servers"] == [
        {"address": dead, "health": "connection refused"},
        {"address": address, "health": "healthy"},
    ]

    assert run_command(main, [str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "teacher_rl running for 1m 4" in text
    assert "step 20 of 125 done, 4 s/step, " in text
    assert "\ngenerating for " in text
    assert "\nstep 20: reward -2.5  loss 0.5  tokens/s 1234\n" in text
    assert "\nstep 20: generate 2.25s  update 1.5s\n" in text
    assert f"vLLM server 0 (pid {GONE}) HAS ENDED at {dead} (connection refused)" in text
    assert f"server {address} (healthy)" in text
    assert "| hub_token=***" in text


def test_a_killed_run_says_what_it_was_doing(tmp_path, capsys):
    write_run(tmp_path, "running")
    Now(tmp_path).enter("syncing weights", 3, 9)
    assert run_command(main, [str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}: teacher_rl interrupted"
    assert lines[1:] == ["the process ended without a word (killed?)", "was syncing weights"]


def test_servers_that_load_before_the_run_is_recorded(tmp_path):
    write_run(tmp_path, "failed", error="DataError: no rows")  # an earlier one in the same directory
    write_processes(tmp_path, [describe_process("vLLM server 0", os.getpid(), log="elsewhere/vllm-1.log")])
    told = look(tmp_path)
    assert (told["state"], told["error"], told["doing"]) == ("starting", None, None)
    write_processes(tmp_path, [describe_process("vLLM server 0", GONE)])
    assert look(tmp_path)["state"] == "failed"


def test_an_id_that_was_given_to_another_process(tmp_path):
    write_run(tmp_path, "running", os.getpid())
    mine = describe_process("training", os.getpid())
    write_processes(tmp_path, [{**mine, "ticks": mine["ticks"] - 1000}])
    assert [p["alive"] for p in look(tmp_path)["processes"]] == [True, False]


def test_a_pipeline_and_a_folder_of_runs(tmp_path, capsys):
    pipeline = tmp_path / "pipeline"
    write_run(pipeline / "warm_up", "finished", stage="teacher_sft")
    write_run(pipeline / "teacher", "running", os.getpid())
    steps = [
        {"name": "warm_up", "stage": "teacher_sft", "status": "finished", "seconds": 90.0},
        {"name": "teacher", "stage": "teacher_rl", "status": "running", "seconds": None},
        {"name": "students", "stage": "student_sft", "status": "waiting", "seconds": None},
    ]
    steps = [{**step, "directory": f"results/{step['name']}"} for step in steps]
    write_json(pipeline / "pipeline.json", {"status": "running", "started": ago(200), "steps": steps})
    write_run(tmp_path / "other", "finished", stage="evaluate")
    assert run_command(main, [str(tmp_path)]) == 0
    text = capsys.readouterr().out
    table, _, full = text.partition("\n\n")
    assert [line.split("|")[2].split() for line in table.splitlines()[2:]] == [["evaluate"], ["pipeline"]]
    assert "| students | student_sft | waiting" in full
    assert f"{pipeline / 'teacher'}: teacher_rl running for 1m 4" in full
    write_run(pipeline / "teacher", "running")  # killed, and nobody holds the pipeline's lock
    assert look(pipeline)["state"] == "interrupted"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "holds no run: no run.json, pipeline.json or processes.json in it or below"),
        ({"run.json": "{"}, "run.json is not JSON"),
        ({"processes.json": "[]"}, "processes.json holds no object; remove it"),
    ],
)
def test_what_is_no_run_is_one_sentence(tmp_path, capsys, files, sentence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run_command(main, [str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_it_loads_nothing_heavy():
    code = "import sys, rlt.status.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "transformers", "datasets", "omegaconf", "requests"}.isdisjoint(loaded.split())
