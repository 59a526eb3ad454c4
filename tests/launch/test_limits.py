"""Limits of the system, looked at before a server starts: real limits, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rlt.launch.limits as limits
from rlt.errors import ConfigError
from rlt.launch.limits import check_limits, socket_env

START = """
import os, resource, sys
from contextlib import ExitStack
from pathlib import Path
from rlt.errors import ConfigError
from rlt.launch.server import ServerPlan, start_servers
folder = Path(sys.argv[1])
{limit}
plan = ServerPlan(0, 1, "http://127.0.0.1:1", ("touch", str(folder / "started")), {{}}, folder / "log")
try:
    with ExitStack() as stack:
        start_servers([plan], stack)
except ConfigError as error:
    print(error)
"""
NOBODY = (
    "os.chown(folder, 65534, 65534); resource.setrlimit(resource.RLIMIT_NPROC, (40, 40)); os.setuid(65534)"
)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))", "may open 200 files here (ulimit -Hn)"),
        ("import rlt.launch.limits as l; l.SHARED_MEMORY = folder; l._SHARED_ALONE = 2**60", "--shm-size=8g"),
        pytest.param(
            NOBODY,
            "more processes and threads are allowed here (ulimit -u)",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="another user's limit is root's to set"),
        ),
    ],
)
def test_a_limit_that_is_too_small_is_named_before_anything_starts(tmp_path, limit, said):
    command = [sys.executable, "-c", START.format(limit=limit), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000, check=True)
    assert said in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_limits_of_this_machine_are_enough():
    check_limits([1])
    check_limits([])


@pytest.mark.parametrize("most", ["max", "300", "2000"])
def test_the_narrowest_control_group_counts(tmp_path, monkeypatch, most):
    own = [
        line
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.split(":")[1] in ("", "pids")
    ]
    if not own:
        pytest.skip("no control group counts processes here")
    _, controllers, path = own[0].split(":", 2)
    group = tmp_path / controllers / path.lstrip("/")
    group.mkdir(parents=True, exist_ok=True)
    (group / "pids.max").write_text(most)
    (group / "pids.current").write_text("100")
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    if most == "300":
        with pytest.raises(ConfigError, match=r"200 more processes .* here \(pids.max"):
            check_limits([1])
    else:
        check_limits([1])


@pytest.mark.parametrize(("length", "is_short"), [(70, True), (71, False), (200, False)])
def test_sockets_get_a_folder_that_is_short_enough(monkeypatch, length, is_short):
    # 70 + a slash + 36 characters of a UUID = the 107 bytes that a socket's path may have.
    monkeypatch.setattr(limits.tempfile, "gettempdir", lambda: "/" + "x" * (length - 1))
    assert socket_env({}) == ({} if is_short else {"VLLM_RPC_BASE_PATH": "/tmp"})


def test_bytes_count_and_a_folder_that_was_given_is_refused(monkeypatch):
    monkeypatch.setattr(limits.tempfile, "gettempdir", lambda: "/" + "ü" * 36)  # 37 characters, 73 bytes
    assert socket_env({}) == {"VLLM_RPC_BASE_PATH": "/tmp"}
    with pytest.raises(ConfigError, match="is 80 bytes long, and sockets in it may have 70 at most"):
        socket_env({"VLLM_RPC_BASE_PATH": "/" + "y" * 79})
    assert socket_env({"VLLM_RPC_BASE_PATH": "/short"}) == {}
