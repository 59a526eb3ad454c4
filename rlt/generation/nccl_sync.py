"""Weights from the trainer's GPU to the servers' GPUs in one NCCL broadcast group.

Written against vLLM's weight-transfer endpoints. What needs CUDA is in nccl_group.py; everything here runs in
tests against real servers, with a group that needs no GPU.

The trainer is rank 0, the workers of all servers follow, so one send reaches every server, whatever
their number. Tensors are sent one by one rather than packed: the protocol is then the same in all
supported versions, and nothing is copied twice.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from rlt.generation.nccl_group import BroadcastGroup
from rlt.generation.parallel import TimeLimit, run_all
from rlt.generation.server_checks import CONTROL_TIMEOUT
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import VLLMServer
from rlt.generation.weight_sync import check_names

CHUNK_BYTES = 512 * 2**20
"""GPU memory for tensors that wait to be sent; a single larger tensor travels alone."""


class NCCLSync:
    """A `WeightSync` over a broadcast group, which `new_group` makes. Connects at the first push.

    Gathering and sending take turns: a chunk of tensors is gathered (a collective of the trainer's
    processes), then sent (a collective with the servers). Interleaved, the two could block each other.
    `timeout` is the number of seconds that one push may take, the gathering and the connecting with it.
    """

    version: Path | None = None
    """No files: weights of which the policy is gone cannot be sent again."""

    def __init__(
        self,
        pool: VLLMPool,
        new_group: Callable[[], BroadcastGroup],
        *,
        timeout: float,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._pool = pool
        self._new_group = new_group
        self._timeout = timeout
        self._chunk_bytes = chunk_bytes
        self._group: BroadcastGroup | None = None
        self._names: set[str] | None = None

    def push(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Send every tensor to every server, a chunk at a time."""
        limit = TimeLimit("a weight sync", self._timeout, "generation.sync_timeout")
        try:
            self._push(weights, limit)
        except BaseException:
            # Whatever has failed, a broadcast that nobody joins may be on the device.
            self._leave()
            raise

    def _push(self, weights: Iterator[tuple[str, Tensor]], limit: TimeLimit) -> None:
        group = self._group = self._group or self._connect(limit)
        self._post_all("/start_weight_update", limit)
        names: set[str] = set()
        for chunk in chunked(weights, group.device, self._chunk_bytes):
            names.update(name for name, _ in chunk)
            info = {
                "names": [name for name, _ in chunk],
                "dtype_names": [str(tensor.dtype).removeprefix("torch.") for _, tensor in chunk],
                "shapes": [list(tensor.shape) for _, tensor in chunk],
            }
            exchange(
                self._pool.servers,
                "/update_weights",
                [{"update_info": info}] * len(self._pool.servers),
                partial(group.send, [tensor for _, tensor in chunk]),
                limit.left(),
            )
        self._names = check_names(names, self._names)
        self._post_all("/finish_weight_update", limit)
        self._pool.reset_prefix_cache()

    def reconnect(self) -> None:
        """Leave the group; the next push makes a new one with the servers, all of them started again."""
        self._leave()

    def close(self) -> None:
        """Leave the group; its socket would keep the servers waiting."""
        self._leave()

    def _leave(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _post_all(self, path: str, limit: TimeLimit) -> None:
        timeout = limit.left()
        self._pool.on_all(path, lambda server: server.post(path, {}, timeout=timeout))

    def _connect(self, limit: TimeLimit) -> BroadcastGroup:
        """Return the group of the trainer and all servers' workers."""
        servers = self._pool.servers
        self._pool.on_all("check of the weight-transfer engine", require_nccl_engine)
        sizes = self._pool.on_all("world size", lambda server: server.world_size(CONTROL_TIMEOUT))
        # The port is taken here and handed over open, so nobody can take it in between.
        listener = socket.create_server((address_towards(servers), 0))
        host, port = listener.getsockname()[:2]
        timeout = limit.left()
        # Kept before it has joined, since even a half-made connection has to be left.
        self._group = group = self._new_group()
        exchange(
            servers,
            "/init_weight_transfer_engine",
            [{"init_info": info} for info in init_infos(host, port, sizes)],
            partial(group.join, listener, 1 + sum(sizes), timeout),
            timeout,
        )
        return group


def init_infos(host: str, port: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return each server's place in the group: the trainer is rank 0, the servers' workers follow."""
    world_size = 1 + sum(sizes)
    offsets = [1 + sum(sizes[:i]) for i in range(len(sizes))]
    common = {"master_address": host, "master_port": port, "world_size": world_size}
    return [{**common, "rank_offset": offset} for offset in offsets]


def exchange(
    servers: Sequence[VLLMServer],
    path: str,
    bodies: Sequence[dict[str, Any]],
    trainer_side: Callable[[], Any],
    timeout: float,
) -> Any:
    """Return what `trainer_side` returns, run at the same time as one request to each server.

    Both sides meet in a collective. If a server refuses, its words are raised at once, though the
    trainer's side then waits in its thread until the caller aborts the group.
    """

    def request(server: VLLMServer, body: dict[str, Any]) -> Callable[[], Any]:
        return lambda: server.post(path, body, timeout=timeout)

    tasks = [
        (f"POST {path} at {server.address}", request(server, body))
        for server, body in zip(servers, bodies, strict=True)
    ]
    # A few seconds more, so that a server's own timeout, which shows its log, comes first.
    return run_all([*tasks, (f"the trainer's side of {path}", trainer_side)], timeout=timeout + 5)[-1]


def chunked(
    weights: Iterator[tuple[str, Tensor]], device: torch.device, max_bytes: int
) -> Iterator[list[tuple[str, Tensor]]]:
    """Yield lists of copied tensors on the device, each list within max_bytes if its tensors are."""
    chunk: list[tuple[str, Tensor]] = []
    num_bytes = 0
    for name, tensor in weights:
        if chunk and num_bytes + tensor.nbytes > max_bytes:
            yield chunk
            chunk, num_bytes = [], 0
        # A copy: a gathered tensor is taken apart again when the next one comes.
        chunk.append((name, tensor.detach().to(device, copy=True).contiguous()))
        num_bytes += tensor.nbytes
    if chunk:
        yield chunk


def require_nccl_engine(server: VLLMServer) -> None:
    """Raise unless the server was started with vLLM's NCCL weight-transfer engine."""
    info = server.get("/server_info", timeout=CONTROL_TIMEOUT, missing_ok=True, config_format="json")
    engine = None if info is None else info["vllm_config"].get("weight_transfer_config")
    if engine is None or engine.get("backend") != "nccl":
        raise server.failure(
            "cannot receive weights over NCCL; start it with VLLM_SERVER_DEV_MODE=1 and "
            """--weight-transfer-config '{"backend": "nccl"}', or set generation.weight_sync=checkpoint""",
            with_log=False,
        )


def address_towards(servers: Sequence[VLLMServer]) -> str:
    """Return the address of this machine under which every server can reach it."""
    found = set()
    for server in servers:
        url = urlparse(server.address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket sends nothing; it only asks the routing table.
            probe.connect((url.hostname, url.port or 80))
            found.add(probe.getsockname()[0])
    outside = sorted(address for address in found if not address.startswith("127."))
    return outside[0] if outside else "127.0.0.1"
