"""Runs beside a real vLLM server, and that server."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import requests

from helpers.launchers import PATIENCE, Launcher
from rlt.config.server_key import VARIABLE
from rlt.status.look import look

SPLIT = "launch_with_server.sh"
LONG = ["learning_rate=1e-2", "max_completion_length=300", "trainer.max_steps=5"]
"""Weights that have moved when it happens, and a generation that takes its time."""

AHEAD = ["generation.max_staleness=1", "trainer_args.vllm_importance_sampling_correction=true"]
"""The server writes the completions of the next step while this one is learnt from."""

NUM_STEPS = 100_000
ENDLESS = [f"trainer.max_steps={NUM_STEPS}", "trainer.save_steps=0"]
"""A run that is still there whenever something happens to it; so many checkpoints would not fit on a disk."""


def the_server(launcher: Launcher) -> psutil.Process:
    """Return the server's first process."""
    (server,) = (p for p in launcher.called("vllm.entrypoints") if "api_server" in " ".join(p.cmdline()))
    return server


def num_requests(run: Path, server: psutil.Process) -> int:
    """Return how many requests the server is answering."""
    (described,) = look(run)["servers"]
    key = {"Authorization": f"Bearer {environment(server.pid)[VARIABLE]}"}
    told = requests.get(f"{described['address']}/metrics", headers=key, timeout=PATIENCE).text
    (count,) = re.findall(r"^vllm:num_requests_running\S* ([0-9.]+)$", told, re.MULTILINE)
    return int(float(count))


def environment(pid: int) -> dict[str, str]:
    """Return the environment with which a process was started."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
