"""Two real gloo processes: success and failure of the main one reach both, however long it takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
import torch
from datetime import timedelta
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from rlt.generation import heartbeat
from rlt.errors import DataError, GenerationError
from rlt.generation.collective import consume_on_main_process, on_every_process, on_main_process

LIMIT = 8  # seconds of the process group
accelerator = Accelerator(
    cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=1000))]
)
rank = accelerator.process_index
assert accelerator.num_processes == 2

assert on_main_process(accelerator, lambda: {"rank": rank}) == {"rank": 0}

def fail(error):
    raise error

for error, kind, words in (
    (DataError("row 3 is empty"), DataError, "row 3 is empty"),
    (KeyError("x"), GenerationError, "KeyError: 'x'"),
):
    try:
        on_main_process(accelerator, lambda: fail(error))
    except kind as raised:
        assert str(raised) == words, raised
    else:
        raise SystemExit("no error")

def weights():
    # Like a ZeRO-3 gather: every process has to take part in every step.
    for i in range(5):
        x = torch.tensor([float(rank + 1)])
        torch.distributed.all_reduce(x)
        yield f"w{i}", x

class Sync:
    def __init__(self, fail_at): self.fail_at, self.seen = fail_at, []
    def push(self, pairs):
        for name, tensor in pairs:
            self.seen.append((name, tensor.item()))
            if name == self.fail_at:
                raise GenerationError("the server is gone")

sync = Sync(None)
consume_on_main_process(accelerator, weights(), sync.push)
if rank == 0:
    assert sync.seen == [(f"w{i}", 3.0) for i in range(5)]
try:
    consume_on_main_process(accelerator, weights(), Sync("w1").push)
except GenerationError as raised:
    assert str(raised) == "the server is gone"
else:
    raise SystemExit("no error")
assert on_every_process(accelerator, lambda: rank) == rank
try:
    on_every_process(accelerator, lambda: fail(GenerationError("NaN")) if rank == 1 else rank)
except GenerationError as raised:
    assert str(raised) == "NaN (on process 1 of 2)", raised
else:
    raise SystemExit("no error")
# Work that takes longer than the group's limit, and than a process may be silent. Until here, processes that
# have just started on a busy machine may be far apart.
torch.distributed.barrier()
torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=LIMIT))
heartbeat.SAY_EVERY, heartbeat.SILENT_AFTER = 0.5, 0.75 * LIMIT
assert on_main_process(accelerator, lambda: time.sleep(1.5 * LIMIT) or "slow") == "slow"
assert on_every_process(accelerator, lambda: time.sleep(1.5 * LIMIT * rank) or rank) == rank
# A process that says nothing is given up, with a sentence. (Its own call does end.)
heartbeat.SAY_EVERY, heartbeat.SILENT_AFTER = 1000, 2.0
if rank == 0:
    time.sleep(5)
else:
    try:
        heartbeat.Meeting(rank, 2).await_done(0)
    except GenerationError as raised:
        assert "process 0 of 2 has ended, or given no sign of life for 2 s" in str(raised), raised
    else:
        raise SystemExit("no error")
# Both are still in step: a collective works.
assert gather_object([rank]) == [0, 1]
torch.distributed.destroy_process_group()
print(f"rank {rank} done", flush=True)
"""


@pytest.mark.slow
def test_outcome_of_the_main_process_reaches_all(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank, process in enumerate(processes):
            output, _ = process.communicate(timeout=1000)
            assert process.returncode == 0, output
            assert f"rank {rank} done" in output
    finally:
        for process in processes:
            process.kill()
