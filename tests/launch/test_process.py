"""Children end with all their descendants, however those hide, and nobody else does."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from rlt.launch.descendants import MARK, kill_living, living
from rlt.launch.process import Child, stop_all
from rlt.surroundings.clock import start_of
from rlt.surroundings.waiting import wait_until

LEAVES_ITS_GROUP = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def start(tmp_path: Path, code: str) -> tuple[Child, str]:
    """Return a started child and the first line that it wrote."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        child = Child("test", [sys.executable, "-c", code], {}, file)
    deadline = time.monotonic() + 1000
    while not output.read_text().endswith("\n"):
        assert time.monotonic() < deadline, "the child wrote nothing"
        time.sleep(0.05)
    return child, output.read_text().strip()


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_descendant_outside_the_group_ends_too(tmp_path):
    child, line = start(tmp_path, LEAVES_ITS_GROUP)
    grandchild = int(line)
    assert os.getpgid(grandchild) != os.getpgid(child.pid)
    assert {p.pid for p in living(child.mark)} == {child.pid, grandchild}
    child.stop(grace=1.0)
    assert not is_running(child.pid)
    assert not is_running(grandchild)


def test_a_number_that_the_system_has_given_again_names_somebody_else():
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        try:
            start = start_of(stranger.pid)
            assert start is not None
            assert [p.pid for p in living("no mark", {stranger.pid: start})] == [stranger.pid]
            assert living("no mark", {stranger.pid: start - 1}) == []
            assert kill_living("no mark", {stranger.pid: start - 1}) == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_session_is_known_after_its_leader(tmp_path):
    pid_file = tmp_path / "pid"
    command = f"sleep 1000 & echo $! > {pid_file}"
    with subprocess.Popen(["sh", "-c", command], start_new_session=True) as leader:
        start = start_of(leader.pid)
    member = int(pid_file.read_text())
    try:
        assert [p.pid for p in living("no mark", {leader.pid: start})] == [member]
    finally:
        os.kill(member, signal.SIGKILL)


def test_orphans_of_a_dead_child_end_at_once(tmp_path):
    child, line = start(tmp_path, LEAVES_ITS_GROUP)
    psutil.Process(child.pid).kill()
    child.stop(grace=10_000)
    assert not is_running(int(line))
    assert child.poll() == 137


def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    child, _ = start(tmp_path, IGNORES_SIGTERM)
    start_time = time.monotonic()
    child.stop(grace=0.5)
    assert time.monotonic() - start_time >= 0.5
    assert child.poll() == 137


def test_only_our_own_children_end(tmp_path):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        child, _ = start(tmp_path, IGNORES_SIGTERM)
        other, _ = start(tmp_path, IGNORES_SIGTERM)
        child.stop(grace=0.1)
        assert other.poll() is None
        assert stranger.poll() is None
        stop_all([child, other], grace=0.1)
        assert other.poll() == 137
    finally:
        stranger.kill()
        stranger.wait()


def test_a_child_that_cannot_be_ended_spares_no_other(tmp_path, monkeypatch, caplog):
    protected, _ = start(tmp_path, IGNORES_SIGTERM)
    other, _ = start(tmp_path, IGNORES_SIGTERM)
    kill = psutil.Process.kill

    def kill_if_allowed(process: psutil.Process) -> None:
        if process.pid == protected.pid:
            raise psutil.AccessDenied(process.pid)
        kill(process)

    with monkeypatch.context() as system:
        system.setattr(psutil.Process, "kill", kill_if_allowed)
        system.setattr("rlt.launch.process.KILL_TIMEOUT", 0.5)
        stop_all([protected, other], grace=0.1)
    assert protected.poll() is None
    assert other.poll() == 137
    assert f"test (process {protected.pid}) could not be ended" in caplog.text
    protected.stop(grace=0.1)
    assert protected.poll() == 137


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "sys.exit(0)"])
def test_children_and_theirs_end_when_the_launcher_does_without_ending_them(end):
    launcher = (
        "import os, signal, sys; from rlt.launch.process import Child\n"
        f"child = Child('t', [sys.executable, '-c', {LEAVES_ITS_GROUP!r}], {{}}, 1)\n"
        f"print(child.pid, flush=True); sys.stdin.readline(); {end}"
    )
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-c", launcher],
        env={**os.environ, MARK: mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        pids = {int(popen.stdout.readline()) for _ in range(2)}
        wait_until(lambda: {process.pid for process in living(mark)} > pids, 1000)  # one may not be named yet
        assert {process.pid for process in living(mark)} > pids
        popen.stdin.write("\n")
        popen.stdin.close()
        popen.wait(timeout=1000)
        wait_until(lambda: not living(mark), 1000)
        assert living(mark) == []


def test_a_process_that_changed_its_title_ends_with_its_killed_leader(tmp_path):
    """vLLM's engine does, which can wipe its environment: it outlived a killed server."""
    pytest.importorskip("setproctitle")
    engine = "import os, setproctitle, time; setproctitle.setproctitle('VLLM::EngineCore')\n"
    engine += "print(os.getpid(), flush=True); time.sleep(600)"
    code = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {engine!r}]); time.sleep(600)"
    )
    child, pid = start(tmp_path, code)
    psutil.Process(child.pid).kill()
    child.stop(grace=2)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
