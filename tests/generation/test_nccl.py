"""The NCCL sync without a GPU: real servers, a trainer of two processes under ZeRO-3, another communicator.

Only the communicator and torch.cuda's calls behind it are replaced (store_group.py). Log-probabilities of
what the servers sample are compared with those computed in float64 from the weights that were pushed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.generation_server import Server, free_port, running_server
from helpers.generation_tiny import save_tiny, tiny_model

from rlt.generation.nccl_sync import chunked
from rlt.generation.weights import model_weights

pytest.importorskip("vllm")
pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.vllm, pytest.mark.timeout(2 * 900)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHUNK_BYTES = 100_000
GROUP_LIMIT = 1234.0
TIMEOUT = 900


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Three servers of an untied model and one of a tied model, which load at the same time."""
    from store_group import EXTENSION

    root = tmp_path_factory.mktemp("nccl")
    folders = [save_tiny(root / "untied", seed=0)] * 3 + [save_tiny(root / "tied", seed=0, tied=True)]
    flags = ["--weight-transfer-config", '{"backend": "nccl"}', "--worker-extension-cls", EXTENSION]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        contexts = [
            running_server(folder, root / f"server{i}.log", *flags, **paths)
            for i, folder in enumerate(folders)
        ]
        yield list(threads.map(stack.enter_context, contexts))


def train(servers: list[Server], out: Path, **task: Any) -> list[dict[str, Any]]:
    """Return what both processes of nccl_trainer.py have written."""
    task |= {"folder": str(servers[0].model_dir), "out": str(out), "chunk_bytes": CHUNK_BYTES}
    task |= {"servers": [server.address for server in servers], "group_limit": GROUP_LIMIT}
    (out / "task.json").write_text(json.dumps(task))
    command = [sys.executable, "-m", "rlt.launch.accelerated"]
    command += ["--config_file", str(ROOT / "cfgs" / "accelerate" / "zero3.yaml"), "--num_processes", "2"]
    command += ["--main_process_port", str(free_port()), "--mixed_precision", "no"]
    command += [str(HERE / "nccl_trainer.py"), str(out / "task.json")]
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE.parent)])  # tests/, for `helpers`
    log = out / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            code = "none: it hung"
            process.terminate()  # it ends its processes, which are in groups of their own
            process.wait(1000)
    assert code == 0, f"exit code {code}; last lines:\n{log.read_text()[-4000:]}"
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def worst(model: Any, samples: list[tuple[list[int], list[int], list[float]]]) -> float:
    """Return the largest difference between sampled log-probabilities and those of a model in float64."""
    model, differences = model.double(), []
    for prompt, ids, logprobs in samples:
        assert len(ids) == len(logprobs) == 30
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / 0.7
        exact = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        differences.append((exact - torch.tensor(logprobs, dtype=torch.float64)).abs().max().item())
    return max(differences)


def rounded(model: Any) -> Any:
    """Return the model with its parameters rounded to bfloat16, and its rotary frequencies as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


def test_chunks_cut_apart_what_the_servers_fuse() -> None:
    weights = model_weights(tiny_model(seed=1))
    chunks = [[name for name, _ in c] for c in chunked(weights, torch.device("cpu"), CHUNK_BYTES)]
    cuts = {(a[-1].split(".")[-2], b[0].split(".")[-2]) for a, b in pairwise(chunks)}
    assert ("gate_proj", "up_proj") in cuts
    assert cuts & {("q_proj", "k_proj"), ("k_proj", "v_proj")}


def test_untied_model_reaches_one_server_and_two(servers: list[Server], tmp_path: Path) -> None:
    ranks = train(servers[:3], tmp_path, tied=False, victim=servers[1].process.pid)
    for rank in ranks:
        for name, seed in (
            *(("alone 1 0", 1), ("alone 2 0", 2)),
            *(("both 3 0", 3), ("both 3 1", 3), ("back 4 0", 4)),
        ):
            assert worst(tiny_model(seed), rank[name]) < 1e-5, name
        for name in ("bfloat16 3 0", "bfloat16 3 1"):
            assert worst(rounded(tiny_model(3)), rank[name]) < 1e-5, name
            assert worst(tiny_model(3), rank[name]) > 1e-4, "the weights had not been rounded before"
        assert servers[1].address in rank["lost"]
    assert ranks[0]["events"] == [
        *("joined 1", "aborted"),
        *("joined 2", "aborted"),
        # One of two dies in the broadcast: the send that waits for it comes free, and a new group is made.
        *("joined 2", "aborted", "a send was aborted", "joined 1", "aborted"),
    ]
    assert ranks[1]["events"] == []
    # DeepSpeed has made groups of its own besides the default one, and named no limit.
    for rank in ranks:
        assert len(rank["group limits"]) > 1
        assert set(rank["group limits"]) == {GROUP_LIMIT}


def test_requests_come_in_vllms_order(servers: list[Server]) -> None:
    log = servers[0].log_path.read_text()
    paths = re.findall(r'"POST (/\w+) HTTP/1.1" 200', log)
    order = "/init_weight_transfer_engine /start_weight_update( /update_weights)+ /finish_weight_update"
    assert re.search(rf"{order} /reset_prefix_cache", " ".join(paths)), paths


def test_tied_model_keeps_the_storage_that_its_head_shares(servers: list[Server], tmp_path: Path) -> None:
    from store_group import digest

    ranks = train(servers[3:], tmp_path, tied=True)
    model = tiny_model(5, tied=True)
    digests = ranks[0]["digests"]
    embeddings = digest(model.model.embed_tokens.weight.data)
    assert digests["model.embed_tokens.weight"][0] == embeddings
    assert digests["lm_head.weight"] == digests["model.embed_tokens.weight"]
    # Once the CPU server's packed copy of the head is renewed, it is the whole model.
    for rank in ranks:
        assert worst(model, rank["tied 5 0"]) < 1e-5
