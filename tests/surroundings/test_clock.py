"""Limits count the time in which the watcher ran, and no decision hangs on the wall clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlt.errors import TrainingStuck
from rlt.io import write_json
from rlt.launch.health import MotionWatch
from rlt.rundir.now import Now, read_now, seconds_in_phase
from rlt.rundir.processes import describe_process, is_alive
from rlt.surroundings.clock import running, since_boot, start_of

WATCHERS = ("clock", "silence", "request", "threads", "motion", "grading", "grace")
SUSPENDED, WORK = 12.0, 13
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slow_server() -> Iterator[str]:
    """Yield the address of a server that takes `WORK` seconds: for a POST, and for the first GET."""
    asked = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(WORK)
            choice = {"index": 0, "token_ids": [4], "finish_reason": "stop"}
            self._answer({"choices": [{**choice, "logprobs": {"token_logprobs": [-1.0]}}]})

        def do_GET(self) -> None:
            if self.path == "/once-slow" and not asked.is_set():
                asked.set()
                time.sleep(WORK)
            self._answer({})

        def _answer(self, answer: dict[str, Any]) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # a client that has given up
                super().handle()

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()


@pytest.fixture(scope="module")
def outcomes(slow_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return how each watcher has fared, all of them suspended at the same time."""
    script = str(Path(__file__).with_name("suspended.py"))
    children = {}
    for name in WATCHERS:
        words = [sys.executable, script, name, slow_server, str(tmp_path_factory.mktemp(name))]
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        children[name] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)

    def suspend(child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        assert child.stdout.readline() == "watching\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGSTOP)
        time.sleep(SUSPENDED)
        child.send_signal(signal.SIGCONT)

    threads = [threading.Thread(target=suspend, args=(child,)) for child in children.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: child.communicate(timeout=1000)[0].strip() for name, child in children.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", WATCHERS)
def test_a_suspended_watcher_gives_nobody_up(outcomes, name):
    assert outcomes[name] == "well"


def tell(directory: Path, step: int, written: float) -> None:
    told = {"phase": "training", "since": written, "step": step, "written": written, "spent": {}}
    write_json(directory / "now.json", told)


@pytest.mark.slow
def test_a_training_is_stuck_by_what_it_does_not_do_whatever_the_clock_says(tmp_path):
    tell(tmp_path, 7, time.time())  # an earlier run's
    watch, end = MotionWatch(tmp_path, tmp_path / "train.log", 1.0), time.monotonic() + 3
    while time.monotonic() < end:
        watch.check()
        time.sleep(0.1)
    for step, hours in ((1, -5), (2, 5), (3, -5)):  # the clock is set back and forth
        tell(tmp_path, step, time.time() + 3600 * hours)
        watch.check()
        time.sleep(0.4)
    time.sleep(3)
    with pytest.raises(TrainingStuck, match=r"has been in step 3, training, for \d+ s"):
        watch.check()


@pytest.mark.parametrize("step", [-3600.0, 4.0, 3600.0])
def test_a_step_of_the_clock_ends_no_process_and_lengthens_no_phase(tmp_path, monkeypatch, step):
    me = describe_process("training", os.getpid())
    now = Now(tmp_path)
    now.enter("scoring", 1)
    create_time, wall = psutil.Process.create_time, time.time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + step)
    monkeypatch.setattr(time, "time", lambda: wall() + step)
    assert is_alive(me)
    told = read_now(tmp_path)
    assert told is not None
    assert seconds_in_phase(told) < 60
    now.enter("training", 1)
    assert 0 <= now.spent()["scoring"] < 60


def test_an_id_that_another_process_has_got(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        mine, theirs = describe_process("training", os.getpid()), describe_process("x", other.pid)
        assert not is_alive({**mine, "pid": other.pid})
        assert is_alive(theirs)
        other.kill()
        other.wait()
        assert not is_alive(theirs)


def test_ticks_are_those_of_the_kernel():
    # Both are seconds since boot, the one counted by the kernel when this process was made.
    ticks = start_of(os.getpid())
    assert ticks is not None
    age = since_boot() - ticks / os.sysconf("SC_CLK_TCK")
    assert age == pytest.approx(time.time() - psutil.Process().create_time(), abs=5)


@pytest.mark.slow
def test_the_clock_of_a_fork_goes_on():
    running()
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        start = running()
        time.sleep(1.5)
        os.write(writer, b"well" if running() - start > 1.2 else b"late")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 4) == b"well"
