"""The frozen student inside a real ZeRO-3 run of two processes (DeepSpeed on the CPU)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models_tiny import expected_logprobs, tiny_model
from models_zero3 import requests_of
from transformers import AutoModelForCausalLM

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT = 420


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_two_processes(model: Path, out: Path) -> None:
    """Run models_zero3.py under accelerate; a run that hangs is ended and fails."""
    command = [sys.executable, "-m", "rlt.launch.accelerated"]
    command += ["--config_file", str(ROOT / "cfgs" / "accelerate" / "zero3.yaml"), "--num_processes", "2"]
    command += ["--main_process_port", str(free_port()), "--mixed_precision", "no"]
    command += [str(Path(__file__).with_name("models_zero3.py")), str(model), str(out)]
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = out / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            code = "none: it hung"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    assert code == 0, f"exit code {code}; last lines:\n{log.read_text()[-4000:]}"


@pytest.mark.timeout(TIMEOUT + 120)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_placements_agree_with_one_process(tiny_tokenizer, tmp_path, tied):
    folder = tmp_path / "student"
    tiny_model(seed=4, vocab=len(tiny_tokenizer), tie_word_embeddings=tied).save_pretrained(folder)
    run_two_processes(folder, tmp_path)

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for rank in (0, 1):
        report = json.loads((tmp_path / f"rank{rank}.json").read_text())
        # The trap is real, and leaving it for one model does not disarm ZeRO-3 for the next.
        assert report["plain_shape"] == report["plain_shape_after"] == [0]
        assert (report["replicated_collective"], report["zero3_collective"]) == (False, True)
        requests = requests_of(rank)
        for key in (f"{p}_{t}" for p in ("replicated", "cpu_offload", "zero3") for t in ("first", "again")):
            assert len(report[key]) == len(requests) == (1, 7)[rank]
            for request, values in zip(requests, report[key], strict=True):
                expected = expected_logprobs(plain, request.ids, request.positions, 0.7).detach()
                torch.testing.assert_close(torch.tensor(values).double(), expected, atol=1e-4, rtol=0)
