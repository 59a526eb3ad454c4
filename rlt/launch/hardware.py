"""What the forecast of memory and time assumes of the hardware: every constant of it, with where it is from.

Peak numbers are NVIDIA's data sheets (dense bfloat16, no sparsity); memory is what nvidia-smi reports as
total. The shares of the peaks that are reached are assumptions, not measurements of this project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlt.devices import NvidiaSmiError, query_nvidia_smi
from rlt.launch.model_size import NoForecast

if TYPE_CHECKING:  # so that scripts/bench_gpu.py needs no omegaconf
    from rlt.config.schema import HardwareSettings

GIB = 2**30


@dataclass(frozen=True)
class GPU:
    """One kind of GPU."""

    name: str
    memory: float
    """Bytes."""
    flops: float | None
    """Dense bfloat16 operations a second at most; None where the kind is not known."""
    bandwidth: float
    """Bytes a second from its own memory at most."""
    link: float
    """Bytes a second to its neighbours, one way: NVLink, or PCIe where it has none."""


_PCIE_4 = 32e9
GPUS = {
    "h100-80g": GPU("H100 SXM 80 GB", 81559 * 2**20, 989e12, 3.35e12, 450e9),
    "h200-141g": GPU("H200 SXM 141 GB", 143771 * 2**20, 989e12, 4.8e12, 450e9),
    "b200-180g": GPU("B200 180 GB", 183359 * 2**20, 2250e12, 8.0e12, 900e9),
    "a100-80g": GPU("A100 SXM 80 GB", 81920 * 2**20, 312e12, 2.039e12, 300e9),
    "a100-40g": GPU("A100 SXM 40 GB", 40960 * 2**20, 312e12, 1.555e12, 300e9),
    "l40s-48g": GPU("L40S 48 GB", 46068 * 2**20, 362e12, 0.864e12, _PCIE_4),
    "rtx-4090-24g": GPU("RTX 4090 24 GB", 24564 * 2**20, 165e12, 1.008e12, _PCIE_4),
    "rtx-3090-24g": GPU("RTX 3090 24 GB", 24576 * 2**20, 71e12, 0.936e12, _PCIE_4),
}
DEFAULT = "h100-80g"
"""The paper's hardware; stands in where there is no GPU to ask."""
_MARKS = {
    "h100-80g": r"\bH100 80GB HBM3",
    "h200-141g": r"\bH200\b(?! NVL)",
    "b200-180g": r"\bB200\b",
    "a100-80g": r"\bA100-SXM.*80GB",
    "a100-40g": r"\bA100-SXM.*40GB",
    "l40s-48g": r"\bL40S\b",
    "rtx-4090-24g": r"\bRTX 4090\b(?! [DL])",
    "rtx-3090-24g": r"\bRTX 3090\b(?! Ti)",
}
"""What nvidia-smi calls each kind; relatives with another bus or clock have other speeds."""

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


def recognise(name: str, mebibytes: int) -> GPU:
    """Return the kind that a name of nvidia-smi stands for, with the memory it shows.

    One that is not in the table has no speed.
    """
    kinds = (GPUS[key] for key, mark in _MARKS.items() if re.search(mark, name))
    kind = next(kinds, GPU(name, 0, None, 0, 0))
    return replace(kind, name=name, memory=mebibytes * 2**20)


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
