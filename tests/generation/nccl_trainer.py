"""Run by test_nccl.py in each of two processes under ZeRO-3; argv is a JSON file with what to do.

Pushes weights to real servers through `ServerEngine` and `NCCLSync`, samples from them, and writes what came
back, so that the test can compute the log-probabilities in float64 from the same weights.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from deepspeed.utils import groups
from helpers.generation_tiny import tiny_model
from store_group import StoreGroup
from torch import Tensor
from torch.distributed import distributed_c10d
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from typing_extensions import override

from rlt.errors import ServerLost
from rlt.generation.collective import consume_on_main_process, on_main_process
from rlt.generation.names import Names
from rlt.generation.nccl_sync import NCCLSync
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.generation.weights import model_weights
from rlt.models.gather import gathered
from rlt.models.process_groups import limit_new_groups
from rlt.trainers.server_engine import PolicyWeights, Restarts, ServerEngine

SAMPLING = Sampling(0.7, 30, ())
PROMPTS = [[5, 6, 7], [100, 20, 3]]
"""One for each process."""
GROUP = 2


class KillsServer(StoreGroup):
    """Kills a server's processes in the middle of the broadcast of the second chunk."""

    victim = 0
    chunks = 0

    @override
    def send(self, tensors: Sequence[Tensor]) -> None:
        self.chunks += 1
        if self.chunks == 2 and self.victim:
            super().send(tensors[:1])
            tensors = tensors[1:]
            os.killpg(self.victim, signal.SIGKILL)
            KillsServer.victim = 0
        super().send(tensors)


class Run:
    """A ZeRO-3 policy of two processes, and what it got from the servers."""

    def __init__(self, folder: str, out: str, *, tied: bool, chunk_bytes: int) -> None:
        arguments = TrainingArguments(out, report_to=[], per_device_train_batch_size=1, use_cpu=True)
        self.policy = AutoModelForCausalLM.from_pretrained(folder)
        self.accelerator: Accelerator = Trainer(self.policy, arguments).accelerator
        groups._clone_world_group()  # what DeepSpeed's engine waits in
        self.tied = tied
        self.chunk_bytes = chunk_bytes
        self.results: dict[str, Any] = {}

    def become(self, seed: int) -> None:
        """Take over the weights of a tiny model."""
        source = dict(tiny_model(seed, tied=self.tied).named_parameters())
        for name, parameter in self.policy.named_parameters():
            with torch.no_grad(), gathered([parameter], written=True):
                if self.accelerator.is_main_process:
                    parameter.data.copy_(source[name])

    def engine(
        self, addresses: list[str], new_group: Any = StoreGroup, spare: str | None = None
    ) -> tuple[ServerEngine, VLLMPool]:
        pool = VLLMPool(addresses, timeout=1000)

        def come_back() -> None:
            # All of a group's servers are started again, even one that lives: half of its model is reloaded.
            pool.servers[:] = [VLLMServer(str(spare))]

        return ServerEngine(
            PolicyWeights(lambda: Names(self.policy)(model_weights(self.policy)), updates=lambda: 0),
            self.accelerator,
            generator=pool,
            sync=NCCLSync(pool, new_group, timeout=1000, chunk_bytes=self.chunk_bytes),
            sampling=SAMPLING,
            restarts=Restarts(come_back, most=0 if spare is None else 1),
            overlaps=False,
        ), pool

    def sample(self, name: str, engine: ServerEngine, pool: VLLMPool) -> None:
        """Note two samples of this process's prompt from each server."""
        servers = list(pool.servers)
        # Only the main process asks servers, and knows which of them have come back.
        for index in range(on_main_process(self.accelerator, lambda: len(servers))):
            pool.servers[:] = servers[index : index + 1]
            prompt = PROMPTS[self.accelerator.process_index]
            answers = engine.sample([prompt] * GROUP, [index] * GROUP, GROUP)
            self.results[f"{name} {index}"] = [[prompt, list(a.token_ids), list(a.logprobs)] for a in answers]
        pool.servers[:] = servers


def in_bfloat16(weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor.bfloat16()) for name, tensor in weights)


def untied(run: Run, first: str, second: str, spare: str, victim: int) -> None:
    """One server twice, two in one group (the first of them joins its second), and one that is killed."""
    engine, pool = run.engine([first])
    for seed in (1, 2):
        run.become(seed)
        engine.sync_weights()
        run.sample(f"alone {seed}", engine, pool)
    engine.close()

    engine, pool = run.engine([first, second])
    run.become(3)
    engine.sync_weights()
    run.sample("both 3", engine, pool)
    sync = engine._sync
    consume_on_main_process(run.accelerator, in_bfloat16(model_weights(run.policy)), sync.push)
    run.sample("bfloat16 3", engine, pool)
    engine.close()

    run.become(4)
    KillsServer.victim = victim if run.accelerator.is_main_process else 0
    engine, pool = run.engine([first, second], KillsServer, spare)
    engine.sync_weights()
    run.sample("back 4", engine, pool)

    # No restart is left: every process gets the sentence, at once.
    pool.servers.append(VLLMServer(second))
    engine._sync.reconnect()
    try:
        engine.sync_weights()
    except ServerLost as error:
        run.results["lost"] = str(error)
    engine.close()


def tied(run: Run, address: str) -> None:
    engine, pool = run.engine([address])
    run.become(5)
    engine.sync_weights()
    if run.accelerator.is_main_process:
        server = pool.servers[0]
        rpc = {"method": "tied_digests"}
        run.results["digests"] = server.post("/collective_rpc", rpc, timeout=1000)["results"][0]
        server.post("/collective_rpc", {"method": "pack_tied_head"}, timeout=1000)
    run.accelerator.wait_for_everyone()
    run.sample("tied 5", engine, pool)
    engine.close()


def main(path: str) -> None:
    task = json.loads(Path(path).read_text())
    limit_new_groups(task["group_limit"])
    run = Run(task["folder"], task["out"], tied=task["tied"], chunk_bytes=task["chunk_bytes"])
    if task["tied"]:
        tied(run, *task["servers"])
    else:
        untied(run, *task["servers"], victim=task["victim"])
    run.results["events"] = StoreGroup.events
    run.results["group limits"] = [
        group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
        for group in distributed_c10d._world.pg_map
    ]
    Path(task["out"], f"rank{run.accelerator.process_index}.json").write_text(json.dumps(run.results))
    run.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
