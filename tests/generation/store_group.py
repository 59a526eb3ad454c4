"""A broadcast group without GPUs, for both of its ends: tensors travel through the group's key-value store.

`StoreWorker` is the extension of a server's worker; importing this module there puts `StoreCommunicator` in
the place of vLLM's NCCL communicator. The trainer of a test uses `StoreGroup` where a run uses `NCCLGroup`.
All else on both sides is what runs on GPUs.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.utils import StatelessProcessGroup

from rlt.generation.vllm_worker import PackedReload

EXTENSION = "store_group.StoreWorker"
_CPU = torch.device("cpu")


class StoreCommunicator:
    """Has what vLLM's engine uses of PyNcclCommunicator, and meets the other ranks as that does.

    A send ends when every receiver has the tensor: as with NCCL, one that never comes keeps it waiting.
    """

    def __init__(self, group: StatelessProcessGroup, device: Any, library_path: str | None = None) -> None:
        del device, library_path
        self.available = True
        self.aborted = threading.Event()
        self._group = group
        self._sent = 0
        if group.rank == 0:
            self._await_all("joined")
        else:
            self._tell("joined")

    def broadcast(self, tensor: Tensor, src: int, stream: Any = None) -> None:
        """Send, or receive into the tensor; one of another dtype or shape is refused.

        NCCL copies bytes and would not notice.
        """
        del stream
        assert src == 0
        assert tensor.is_contiguous()
        self._sent += 1
        if self._group.rank == 0:
            self._group.broadcast_obj(_packed(tensor), src)
            self._await_all(f"received {self._sent}")
            return
        kind, data = self._group.broadcast_obj(None, src)
        assert kind == _packed(tensor)[0], f"rank 0 sent {kind}, rank {self._group.rank} has room for another"
        flat = torch.frombuffer(bytearray(data), dtype=tensor.dtype)
        tensor.copy_(flat.view(tensor.shape))
        self._tell(f"received {self._sent}")

    def _tell(self, word: str) -> None:
        self._group.store.set(f"{word} by {self._group.rank}", b"1")

    def _await_all(self, word: str) -> None:
        keys = [f"{word} by {rank}" for rank in range(1, self._group.world_size)]
        while not self._group.store.check(keys):
            if self.aborted.wait(0.005):
                raise RuntimeError("aborted")


def _packed(tensor: Tensor) -> tuple[tuple[str, tuple[int, ...]], bytes]:
    return (str(tensor.dtype), tuple(tensor.shape)), tensor.view(torch.uint8).numpy().tobytes()


class StoreGroup:
    """A `BroadcastGroup` of the trainer. `events` tells what happened to all of them, in order."""

    events: list[str] = []  # noqa: RUF012 - one list for all groups of a process

    def __init__(self) -> None:
        self.device = _CPU
        self._communicator: StoreCommunicator | None = None

    def join(self, listener: socket.socket, world_size: int, timeout: float) -> None:
        host, port = listener.getsockname()[:2]
        group = StatelessProcessGroup.create(
            host, port, 0, world_size, store_timeout=int(timeout), listen_socket=listener
        )
        self._communicator = StoreCommunicator(group, self.device)
        self.events.append(f"joined {world_size - 1}")

    def send(self, tensors: Sequence[Tensor]) -> None:
        assert self._communicator is not None
        try:
            for tensor in tensors:
                self._communicator.broadcast(tensor, src=0)
        except RuntimeError:
            self.events.append("a send was aborted")

    def abort(self) -> None:
        self.events.append("aborted")
        if self._communicator is not None:
            self._communicator.aborted.set()
        self._communicator = None


class StoreWorker(PackedReload):
    """What the servers of these tests add to their workers."""

    def tied_digests(self) -> dict[str, list[Any]]:
        """Return the SHA-256 of what embeddings and head hold, and the addresses of their storage."""
        model = self.model_runner.get_model()
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        named = {"model.embed_tokens.weight": embeddings, "lm_head.weight": head}
        # vLLM pads the vocabulary.
        return {name: [digest(p.data[: model.config.vocab_size]), p.data_ptr()] for name, p in named.items()}

    def pack_tied_head(self) -> None:
        """Renew the packed copy of the LM head that CPU servers keep, as PackedReload does."""
        head = self.model_runner.get_model().lm_head
        head.quant_method.process_weights_after_loading(head)


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes."""
    return hashlib.sha256(_packed(tensor.contiguous())[1]).hexdigest()


if "vllm.v1.worker.worker_base" in sys.modules:  # in a server's worker
    from vllm.distributed.device_communicators import pynccl

    pynccl.PyNcclCommunicator = StoreCommunicator
    torch.cuda.current_stream = lambda device=None: None  # noqa: ARG005 # pyright: ignore
    torch.accelerator.current_device_index = lambda: 0
