"""What the forecast of memory and time assumes of the hardware: every constant of it, with where it is from.

The peaks of each kind of GPU are in rlt/surroundings/gpus.py. The shares of them that are reached are
assumptions, not measurements of this project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlt.devices import NvidiaSmiError, query_nvidia_smi
from rlt.models.size import NoForecast
from rlt.surroundings.gpus import GPU, GPUS, recognise
from rlt.text import GIB

if TYPE_CHECKING:  # so that scripts/bench_gpu.py needs no omegaconf
    from rlt.config.schema import HardwareSettings


DEFAULT = "h100-80g"
"""The paper's hardware; used where there is no GPU to ask."""

COMPUTE_SHARE = 0.35
"""Of the peak operations, in passes over long sequences. Meta reports 0.38 to 0.43 with tuned code on H100s
(Llama 3, arXiv 2407.21783, table 4); a plain trainer with one sequence at a time gets less."""
BANDWIDTH_SHARE = 0.6
"""Of the memory bandwidth, while decoding."""
LINK_SHARE = 0.6
"""Of the link's bandwidth, in collectives."""
NETWORK = 50e9
"""Bytes a second of each GPU to those of other machines: a 400 Gb/s adapter for each, as in a DGX H100."""
HOST_LINK = 20e9
"""Bytes a second between a GPU and pageable host memory over PCIe."""
HOST_BANDWIDTH = 100e9
"""Bytes a second that the host's own passes over optimizer state reach, shared by all GPUs of the machine."""
DISK = 1e9
"""Bytes a second of the disk that the checkpoint sync goes over."""
SERVER_TICK = 3e-3
"""Seconds that vLLM adds to each decoding step: scheduling, sampling, log-probabilities."""
EAGER_TICK = 30e-3
"""Seconds that `generate` of transformers needs to issue one decoding step of some 30 layers."""

CONTEXT_BYTES = 1.0 * GIB
"""CUDA context and cuBLAS workspaces of a process."""
NCCL_BYTES = 0.5 * GIB
"""Buffers of one NCCL communicator on each of its GPUs: 24 channels to two neighbours, each with 4 MiB for
the protocol Simple, 4.7 MiB for LL128 and 0.5 MiB for LL (NCCL's src/init.cc, DEFAULT_BUFFSIZE and the two
below it), are 0.43 GiB. Every communicator has its own (NVIDIA/nccl#864, more there). Not measured."""
USABLE_SHARE = 0.95
"""Of a GPU's memory: PyTorch's allocator leaves gaps."""


def gpu_kind(settings: HardwareSettings) -> GPU:
    """Return the GPU to plan for: the one that is set, else the first that nvidia-smi shows, else DEFAULT.

    Raises NoForecast where nvidia-smi fails.
    """
    if settings.gpu != "auto":
        return GPUS[settings.gpu]
    shown = _first_gpu()
    return GPUS[DEFAULT] if shown is None else recognise(*shown)


def _first_gpu() -> tuple[str, int] | None:
    """Return name and MiB of the first GPU; None for no GPU, and for one that shares the host's memory."""
    try:
        rows = query_nvidia_smi("name,memory.total")
    except NvidiaSmiError as error:
        raise NoForecast(f"{error.what}; hardware.gpu=KIND plans for a kind of GPU") from error
    if rows and len(rows[0]) < 2:
        raise NoForecast(f"nvidia-smi answers “{rows[0][0]}”; hardware.gpu=KIND plans for a kind of GPU")
    name, _, memory = ",".join(rows[0]).rpartition(",") if rows else ("", "", "")
    return (name, int(memory)) if memory.isdigit() else None
