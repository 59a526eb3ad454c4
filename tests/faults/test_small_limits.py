"""Limits of the system that are too small for vLLM servers: refused before one of them loads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.fault_runs import SPLIT
from helpers.launchers import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
SMALL_SHM = (
    "unshare --mount --propagation private sh -c 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec \"$@\"' sh"
)


@pytest.fixture
def group() -> Iterator[Path]:
    """Return a control group in which 200 processes and threads are allowed; skip where none can be made."""
    root = Path("/sys/fs/cgroup")
    own = (root / "pids" if (root / "pids").is_dir() else root) / f"rlt-test-{os.getpid()}"
    try:
        own.mkdir()
        (own / "pids.max").write_text("200")
    except OSError as error:
        with suppress(OSError):
            own.rmdir()
        pytest.skip(f"no control group can be made here: {error.strerror}")
    yield own
    with suppress(OSError):  # its last process is still going
        own.rmdir()


@pytest.mark.fault("a process may open 200 files", "refused before a server loads: “ulimit -Hn”")
def test_open_files(rl_words, start_launcher):
    refused(start_launcher, rl_words, "ulimit -n 200; exec", "a process may open 200 files here (ulimit -Hn)")


@as_root
@pytest.mark.long
@pytest.mark.fault("/dev/shm has 8 MiB", "refused before a server loads: “--shm-size=8g”")
def test_shared_memory(rl_words, start_launcher):
    refused(start_launcher, rl_words, f"exec {SMALL_SHM}", "/dev/shm has 8 MiB free")


@as_root
@pytest.mark.long
@pytest.mark.fault("a container may have 200 processes", "refused before a server loads: “pids.max”")
def test_processes(rl_words, start_launcher, group):
    enter = f"echo $$ > {group}/cgroup.procs; exec"
    refused(start_launcher, rl_words, enter, "more processes and threads are allowed here (pids.max")


def refused(start_launcher, rl_words: list[str], enter: str, says: str) -> None:
    """Start a run in surroundings that a shell command enters; it must end with one sentence."""
    launcher = start_launcher(
        "/bin/bash", "-c", f'{enter} "$@"', "bash", str(PROJECT / SPLIT), "1", "1", *rl_words
    )
    assert launcher.wait() == 2, launcher.console()
    assert launcher.console().count("error: ") == 1
    assert says in launcher.console()
    assert "Traceback" not in launcher.console()
    assert not list(launcher.run.glob("logs/vllm-*.log"))
