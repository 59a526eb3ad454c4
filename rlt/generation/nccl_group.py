"""The trainer's end of the broadcast group that carries weights to the servers: all that needs CUDA and NCCL.

Where no GPU is, tests give `NCCLSync` another `BroadcastGroup` and run everything else. This file alone has
NOT RUN ON CUDA YET.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rlt.errors import GenerationError

logger = logging.getLogger(__name__)


class BroadcastGroup(Protocol):
    """One connection of the trainer, which is rank 0, with the workers of all servers.

    Lifecycle: `join` once, `send` any number of times, `abort`. The first two wait for the other side and run
    in threads of their own; `abort` may come at any moment and ends their waiting.
    """

    device: torch.device
    """Where tensors have to be that are sent."""

    def join(self, listener: socket.socket, world_size: int, timeout: float) -> None:
        """Meet the workers, who come to the listener's address; `world_size` counts them and the trainer."""
        ...

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Broadcast the tensors one by one; returns when all of them have been sent."""
        ...

    def abort(self) -> None:
        """Leave the group. Nothing waits on the device for a broadcast any more."""
        ...


class NCCLGroup:
    """A `BroadcastGroup` of vLLM's NCCL communicator on the trainer's GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._communicator: Any = None

    def join(self, listener: socket.socket, world_size: int, timeout: float) -> None:
        """Meet the workers; GenerationError where the trainer has no NCCL library."""
        # Where vLLM cannot be installed, pyright does not find it.
        from vllm.distributed.device_communicators.pynccl import (  # pyright: ignore[reportMissingImports]
            PyNcclCommunicator,
        )
        from vllm.distributed.utils import StatelessProcessGroup  # pyright: ignore[reportMissingImports]

        torch.cuda.set_device(self.device)  # a thread begins with device 0
        host, port = listener.getsockname()[:2]
        store = StatelessProcessGroup.create(
            host, port, 0, world_size, store_timeout=int(timeout), listen_socket=listener
        )
        # Its constructor ends with an all-reduce, in which it waits on the device for all workers. Made in
        # two steps, it can be aborted there.
        self._communicator = PyNcclCommunicator.__new__(PyNcclCommunicator)
        self._communicator.__init__(store, device=self.device)
        if not self._communicator.available:
            raise GenerationError(
                "the NCCL library cannot be loaded in the trainer; set generation.weight_sync=checkpoint"
            )

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Broadcast on a stream of its own: one that a dead server never joins must not block others."""
        communicator = self._communicator
        with torch.cuda.device(self.device):
            # The tensors are copies that the trainer's stream may still be making. Waited for here, in a
            # thread whose time is limited, and not by the trainer.
            torch.cuda.synchronize(self.device)
            stream = torch.cuda.Stream(self.device)
            for tensor in tensors:
                communicator.broadcast(tensor, src=0, stream=stream)
            stream.synchronize()

    def abort(self) -> None:
        """End the communicator, and with it the kernel of a broadcast that nobody joins.

        Such a kernel spins on the GPU for ever, and every later wait for the whole device (the next push, a
        checkpoint) would wait for it. Dropping the reference alone leaves it there.
        """
        communicator, self._communicator = self._communicator, None
        if getattr(communicator, "comm", None) is None:
            return  # not connected: nothing of it is on the device
        # vLLM's destroy() calls ncclCommAbort, which needs no other side, and waits five seconds for it.
        if not hasattr(communicator, "destroy"):
            logger.warning(
                "this version of vLLM cannot abort an NCCL communicator: a broadcast that a server has not "
                "joined keeps the trainer's GPU waiting; install a newer vLLM"
            )
            return
        communicator.destroy()


def cuda_device(device: torch.device) -> torch.device:
    """Return the trainer's GPU with its index; GenerationError where it has none."""
    if device.type != "cuda":
        raise GenerationError(
            f"generation.weight_sync=nccl needs a CUDA device, and the trainer runs on {device.type}; "
            "set it to checkpoint"
        )
    return torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
