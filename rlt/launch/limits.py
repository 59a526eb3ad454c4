"""What the system allows: shared memory, open files, processes, the length of a socket's path.

A server that lacks one of them dies a minute after its start, with words of another library.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from rlt.errors import ConfigError

SHARED_MEMORY = Path("/dev/shm")
_MIB = 2**20
_SHARED_ALONE = 16 * _MIB
"""For a server of one worker, whose messages are short."""
_SHARED_PER_WORKER = 64 * _MIB
"""For each of several workers: NCCL's segments (33 MiB a channel), and vLLM's queue between them."""
_OPEN_FILES = 512
"""A vLLM server opens about 100, and one for each of its 256 requests at once."""
_THREADS = 256
"""Of one vLLM server: API server, engine, workers."""
_CGROUPS = Path("/sys/fs/cgroup")
_LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path, by the kernel (`sun_path`); zmq refuses longer ones."""
_NAME = 1 + 36
"""What vLLM adds to its folder: a slash and a UUID."""
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def check_limits(workers: list[int]) -> None:
    """Raise ConfigError where servers with so many workers each cannot run; nothing has been started."""
    if not workers:
        return
    _check_shared_memory(sum(_SHARED_ALONE if n == 1 else n * _SHARED_PER_WORKER for n in workers))
    _check_open_files()
    _check_processes(len(workers) * _THREADS)


def _check_shared_memory(needed: int) -> None:
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return  # macOS, which has none that is limited
    if free < needed:
        raise ConfigError(
            f"{SHARED_MEMORY} has {free / _MIB:.0f} MiB free, and the vLLM servers share {needed / _MIB:.0f} "
            "MiB: in a container, start it with --shm-size=8g or --ipc=host (Kubernetes: an emptyDir with "
            f"medium Memory at {SHARED_MEMORY}); else remove what ended programs have left there."
        )


def _check_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # vLLM raises the soft one itself
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
        raise ConfigError(
            f"a process may open {hard} files here (ulimit -Hn), and a vLLM server needs {_OPEN_FILES}: "
            "raise the limit (`ulimit -n` as root, LimitNOFILE of a service, docker's --ulimit nofile)."
        )


def _check_processes(needed: int) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # root has no such limit
        _require_processes(soft - _own_threads(), needed, "ulimit -u")
    left = _left_in_cgroups()
    if left is not None:
        _require_processes(left, needed, "pids.max of the container or job; docker: --pids-limit")


def _require_processes(left: int, needed: int, limit: str) -> None:
    if left < needed:
        raise ConfigError(
            f"{max(left, 0)} more processes and threads are allowed here ({limit}), and the vLLM servers "
            f"need about {needed}: raise the limit, or end other programs."
        )


def _own_threads() -> int:
    """Return how many threads this user has, which is what RLIMIT_NPROC counts on Linux."""
    count = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real == os.getuid():
                count += process.num_threads()
    return count


def _left_in_cgroups() -> int | None:
    """Return how many processes and threads our control groups still allow; None without a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "pids"):
            continue
        root = _CGROUPS / controllers  # version 1 has a folder for each controller
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            with suppress(OSError, ValueError):  # no limit there ("max"), or a folder outside a container
                most = int((group / "pids.max").read_text())
                found.append(most - int((group / "pids.current").read_text()))
    return min(found, default=None)


def socket_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the folder for a vLLM server's sockets where TMPDIR is too long for them.

    vLLM makes them in VLLM_RPC_BASE_PATH, by default the folder for temporary files.
    """
    given = env.get("VLLM_RPC_BASE_PATH")
    folder = given or tempfile.gettempdir()
    if len(os.fsencode(folder)) + _NAME <= _LONGEST_SOCKET:
        return {}
    if given:
        raise ConfigError(
            f"VLLM_RPC_BASE_PATH={given} is {len(os.fsencode(given))} bytes long, and sockets in it may have "
            f"{_LONGEST_SOCKET - _NAME} at most: give a shorter folder, or unset it."
        )
    for short in _SHORT_FOLDERS:
        if os.path.isdir(short) and os.access(short, os.W_OK | os.X_OK):
            return {"VLLM_RPC_BASE_PATH": short}
    raise ConfigError(
        f"TMPDIR={folder} is {len(os.fsencode(folder))} bytes long, too long for the sockets of vLLM, and "
        f"none of {', '.join(_SHORT_FOLDERS)} can be written: set VLLM_RPC_BASE_PATH to a short folder."
    )
