"""Scripts beside the tests of models, run by accelerate in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 900


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_script(
    script: str, *words: object, processes: int = 2, strategy: str = "zero3", precision: str = "no"
) -> None:
    """Run a script of this folder; the last word is a folder for its log. A run that hangs fails."""
    command = [sys.executable, "-m", "rlt.launch.accelerated"]
    command += ["--config_file", str(ROOT / "cfgs" / "accelerate" / f"{strategy}.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", str(free_port())]
    command += ["--mixed_precision", precision, str(Path(__file__).with_name(script)), *map(str, words)]
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = Path(str(words[-1]), "log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            code = "none: it hung"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(1000)
    assert code == 0, f"exit code {code}; last lines:\n{log.read_text()[-4000:]}"
