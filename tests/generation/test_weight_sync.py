"""Weights over files, and the request side of the NCCL sync, against a real vLLM server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.generation_server import Server, running_server
from helpers.generation_tiny import tiny_model
from safetensors.torch import load_file
from torch import Tensor

from rlt.errors import GenerationError
from rlt.generation.checkpoint_sync import CheckpointSync, write_checkpoint
from rlt.generation.choose_sync import make_weight_sync
from rlt.generation.drift import engine_drift
from rlt.generation.nccl_group import NCCLGroup
from rlt.generation.nccl_sync import NCCLSync, address_towards, chunked, exchange, init_infos
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.generation.weight_sync import check_names
from rlt.generation.weights import model_weights, plain_name

PROMPT = [5, 6, 7]
SAMPLING = Sampling(0.7, 30, ())


@pytest.fixture
def pool(server: Server) -> Iterator[VLLMPool]:
    pool = VLLMPool([server.address], timeout=1000, log_paths=[server.log_path])
    yield pool
    pool.close()


def drift_of(pool: VLLMPool, model: Any) -> float:
    """Return the largest difference between the model's log-probabilities and the sampled ones."""
    (group,) = pool.generate([PROMPT], 4, SAMPLING, [0])
    ids = torch.tensor([PROMPT + list(completion.token_ids) for completion in group])
    with torch.no_grad():
        logits = model(ids).logits[:, len(PROMPT) - 1 : -1] / SAMPLING.temperature
    policy = logits.log_softmax(-1).gather(2, ids[:, len(PROMPT) :, None])[..., 0]
    return engine_drift(policy, torch.tensor([c.logprobs for c in group]), torch.ones_like(policy)).max


@pytest.mark.vllm
@pytest.mark.slow
def test_push_changes_the_server_and_a_missing_tensor_shows(pool: VLLMPool, tmp_path: Path) -> None:
    old, new = tiny_model(seed=1), tiny_model(seed=2)
    sync = CheckpointSync(pool, tmp_path / "sync", timeout=1000, max_shard_bytes=300_000)
    sync.push(model_weights(old))
    assert drift_of(pool, old) < 1e-4
    sync.push(model_weights(new))
    assert drift_of(pool, new) < 1e-4
    assert len(list((tmp_path / "sync").iterdir())) == 1
    sync.push(model_weights(old))
    for name in ("lm_head.weight", "model.layers.1.mlp.down_proj.weight"):
        # A new object, since the same one notices that a name is gone.
        CheckpointSync(pool, tmp_path / "sync", timeout=1000).push(leave_out(new, name))
        assert drift_of(pool, new) > 0.05
        sync.push(model_weights(old))
    with pytest.raises(GenerationError, match=r"mix old and new weights \(missing: \['lm_head.weight'\]"):
        sync.push(leave_out(new, "lm_head.weight"))
    sync.close()
    assert not (tmp_path / "sync").exists()


@pytest.mark.vllm
@pytest.mark.slow
def test_prefix_cache_does_not_outlive_a_push(pool: VLLMPool, tmp_path: Path) -> None:
    # Longer than vLLM's blocks of 128 tokens on CPUs, so the prompt's keys and values are cached.
    prompt = [i % 250 for i in range(300)]
    old, new = tiny_model(seed=3), tiny_model(seed=4)
    sync = CheckpointSync(pool, tmp_path / "sync", timeout=1000)
    sync.push(model_weights(old))
    pool.generate([prompt], 2, SAMPLING, [0])
    sync.push(model_weights(new))
    (group,) = pool.generate([prompt], 1, SAMPLING, [0])
    ids = torch.tensor([prompt + list(group[0].token_ids)])
    with torch.no_grad():
        logits = new(ids).logits[0, len(prompt) - 1 : -1] / SAMPLING.temperature
    exact = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
    assert torch.allclose(torch.tensor(group[0].logprobs), exact, atol=1e-4)


def leave_out(model: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    return (pair for pair in model_weights(model) if pair[0] != name)


@pytest.mark.parametrize("tied", [False, True])
def test_written_checkpoint_loads_in_transformers(tied: bool, tmp_path: Path) -> None:
    model = tiny_model(seed=5, tied=tied)
    names = write_checkpoint(model_weights(model), tmp_path / "v1", max_shard_bytes=200_000)
    assert ("lm_head.weight" in names) is not tied
    model.config.save_pretrained(tmp_path / "v1")
    loaded = type(model).from_pretrained(tmp_path / "v1", dtype=torch.float32)
    for (name, ours), theirs in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    # Every shard holds at most the bound, or a single tensor.
    for path in (tmp_path / "v1").glob("*.safetensors"):
        tensors = load_file(path)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 200_000
    assert not list(tmp_path.glob("*.partial"))


def test_tensors_are_copied_before_the_next_one_is_asked_for(tmp_path: Path) -> None:
    shared = torch.zeros(3)

    def reused() -> Iterator[tuple[str, Tensor]]:
        # As under ZeRO-3, where the memory of a gathered tensor is used again.
        for value in (1.0, 2.0):
            yield f"w{value:.0f}", shared.fill_(value)

    write_checkpoint(reused(), tmp_path / "v1", max_shard_bytes=1000)
    loaded = load_file(tmp_path / "v1" / "model-00001-of-00001.safetensors")
    assert {name: t[0].item() for name, t in loaded.items()} == {"w1": 1.0, "w2": 2.0}
    chunks = list(chunked(reused(), torch.device("cpu"), max_bytes=1000))
    assert [(name, t[0].item()) for chunk in chunks for name, t in chunk] == [("w1", 1.0), ("w2", 2.0)]


def test_chunks_keep_to_their_size() -> None:
    # Bytes 40, 40, 40 | 400 | 40 with a bound of 120.
    sizes = [10, 10, 10, 100, 10]
    weights = ((str(i), torch.zeros(size)) for i, size in enumerate(sizes))
    chunks = list(chunked(weights, torch.device("cpu"), max_bytes=120))
    assert [[name for name, _ in chunk] for chunk in chunks] == [["0", "1", "2"], ["3"], ["4"]]


def test_names_of_pushes() -> None:
    assert check_names({"a"}, None) == {"a"}
    with pytest.raises(GenerationError, match="without any tensor"):
        check_names(set(), None)
    with pytest.raises(GenerationError, match=r"missing: \['b'\], new: \['c'\]"):
        check_names({"a", "c"}, {"a", "b"})
    assert plain_name("base_model.model.model.layers.0.q.base_layer.weight") == "model.layers.0.q.weight"


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sync = CheckpointSync(VLLMPool(["http://127.0.0.1:1"], timeout=1), tmp_path / "file" / "sync", timeout=1)
    with pytest.raises(GenerationError, match=r"cannot be written .* generation.sync_dir"):
        sync.push(iter([("w", torch.zeros(1))]))


def test_kind_follows_the_device(tmp_path: Path) -> None:
    pool, cpu = VLLMPool(["http://127.0.0.1:1"], timeout=1), torch.device("cpu")
    sync = make_weight_sync("auto", pool, device=cpu, directory=tmp_path, timeout=1)
    assert isinstance(sync, CheckpointSync)
    with pytest.raises(GenerationError, match="needs a CUDA device"):
        make_weight_sync("nccl", pool, device=cpu, directory=tmp_path, timeout=1)


class Library:
    """Has what NCCLGroup uses of vLLM's communicator, which no machine without a GPU can make."""

    available = True
    destroyed = 0

    def destroy(self) -> None:
        self.destroyed += 1


def test_a_communicator_is_aborted_once_and_only_where_it_is_connected(caplog: Any) -> None:
    group = NCCLGroup(torch.device("cuda", 0))
    group.abort()  # never joined
    library = group._communicator = Library()
    group.abort()
    assert library.destroyed == 0  # on its way: there is no communicator on the device yet
    library = group._communicator = Library()
    library.comm = object()  # pyright: ignore[reportAttributeAccessIssue]
    group.abort()
    group.abort()
    assert library.destroyed == 1
    assert not caplog.records
    group._communicator = SimpleNamespace(comm=object())
    group.abort()
    assert "cannot abort an NCCL communicator" in caplog.text


def test_ranks_of_several_servers() -> None:
    # Trainer rank 0; servers with 2, 1 and 4 workers take ranks 1-2, 3 and 4-7 of 8.
    infos = init_infos("10.0.0.1", 5000, [2, 1, 4])
    assert [info["rank_offset"] for info in infos] == [1, 3, 4]
    assert {info["world_size"] for info in infos} == {8}


def test_address_towards_loopback() -> None:
    assert (
        address_towards([VLLMServer("http://localhost:8000"), VLLMServer("http://127.0.0.1:1")])
        == "127.0.0.1"
    )


@pytest.mark.vllm
@pytest.mark.slow
def test_exchange_raises_the_servers_words_while_the_trainers_side_still_waits(
    pool: VLLMPool, server: Server
) -> None:
    # This server has no weight-transfer engine, so it refuses; the trainer's side would wait for ever.
    released = threading.Event()
    with pytest.raises(GenerationError, match=rf"{server.address} answered POST /update_weights") as raised:
        exchange(pool.servers, "/update_weights", [{"update_info": {}}], released.wait, timeout=1000)
    released.set()
    assert "eight transfer" in str(raised.value)
    assert f"last lines of {server.log_path}" in str(raised.value)


@pytest.mark.gpu
@pytest.mark.vllm
@pytest.mark.slow
def test_nccl_push_reaches_the_server(tiny_dir: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA GPUs: one for the trainer, one for a server")
    flags = ["--weight-transfer-config", '{"backend": "nccl"}', "--gpu-memory-utilization", "0.3"]
    with running_server(tiny_dir, tmp_path / "vllm.log", *flags, CUDA_VISIBLE_DEVICES="1") as server:
        pool = VLLMPool([server.address], timeout=1000, log_paths=[server.log_path])
        new_group = partial(NCCLGroup, torch.device("cuda", 0))
        sync = NCCLSync(pool, new_group, timeout=1000, chunk_bytes=300_000)
        for seed in (1, 2):
            sync.push(model_weights(tiny_model(seed=seed).to("cuda:0")))
            assert drift_of(pool, tiny_model(seed=seed)) < 1e-2
        sync.close()
