"""Starting a real vLLM server for tests, and ending it by its process id."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from rlt.generation.vllm_worker import EXTENSION
from rlt.launch.server import ENTRY_POINT

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}
FLAGS = [
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "512", "--generation-config", "vllm"),
    *("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"),
    *("--worker-extension-cls", EXTENSION),
]
START_TIMEOUT = 1000.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    address: str
    log_path: Path
    model_dir: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_server(model_dir: Path, log_path: Path, *flags: str, **environment: str) -> Iterator[Server]:
    """Yield a server that is healthy and has generated one token; end its process group afterwards."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    port = free_port()
    command = [sys.executable, "-m", ENTRY_POINT, "--model", str(model_dir)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), *FLAGS, *flags],
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Server(f"http://127.0.0.1:{port}", log_path, model_dir, process)
    try:
        _wait_until_ready(started)
        yield started
    finally:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sent)
                process.wait(timeout=60)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log_path.read_text()[-3000:]
        try:
            requests.get(server.address + "/health", timeout=100).raise_for_status()
            break
        except requests.RequestException:
            time.sleep(0.5)
    body = {"prompt": [0], "max_tokens": 1, "temperature": 0.0}
    left = max(1.0, deadline - time.monotonic())
    requests.post(server.address + "/v1/completions", json=body, timeout=left).raise_for_status()
