"""The training's output arrives on the console and in its log, whatever the training does."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlt.device_plan import Plan
from rlt.launch.command import training_env
from rlt.launch.training import TrainingProcess

PRINTS_WHILE_STOPPING = """
import signal, sys, time
def end(*_):
    print("x" * 1_000_000)  # more than any pipe holds
    print("all said", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def started(tmp_path: Path, capfd) -> Iterator:
    """Return a function that starts a training of some code and waits for its first word."""
    trainings: list[TrainingProcess] = []
    log = tmp_path / "logs" / "train.log"

    def start(code: str, env: dict[str, str] | None = None) -> tuple[TrainingProcess, Path]:
        trainings.append(TrainingProcess([sys.executable, "-c", code], env or {"WORD": "ready"}, log))
        deadline = time.monotonic() + 1000
        while b"ready" not in log.read_bytes():
            assert time.monotonic() < deadline, "nothing came"
            time.sleep(0.05)
        return trainings[-1], log

    yield start
    for training in trainings:
        training.stop()


def test_output_goes_to_the_console_and_to_the_log(started, capfd):
    training, log = started("import os; print(os.environ['WORD']); raise SystemExit(3)")
    while training.poll() is None:
        time.sleep(0.05)
    training.drain()
    assert training.poll() == 3
    assert log.read_bytes() == b"ready\n"
    assert capfd.readouterr().out == "ready\n"


def test_a_fault_says_where_it_was(started):
    env = training_env(Plan((), (), 1, "single"))
    training, log = started("import ctypes; print('ready', flush=True); ctypes.string_at(0)", env)
    while training.poll() is None:
        time.sleep(0.05)
    training.drain()
    assert training.poll() in (-signal.SIGSEGV, 128 + signal.SIGSEGV)
    assert "Fatal Python error: Segmentation fault" in log.read_text()
    assert 'File "<string>", line 1 in <module>' in log.read_text()


def test_a_training_that_prints_while_it_stops_is_not_killed_for_it(started):
    training, log = started(PRINTS_WHILE_STOPPING)
    training.stop()
    assert training.poll() == 7
    assert log.read_text().endswith("all said\n")


def test_a_console_that_has_gone_does_not_end_the_training(started, capfd):
    reader, writer = os.pipe()
    console = os.dup(1)
    os.dup2(writer, 1)
    os.close(reader)
    try:
        training, log = started("import time; print('ready', flush=True); time.sleep(1); print('later')")
        while training.poll() is None:
            time.sleep(0.05)
        training.drain()
    finally:
        os.dup2(console, 1)
        os.close(console)
        os.close(writer)
    assert training.poll() == 0
    assert log.read_text() == "ready\nlater\n"
