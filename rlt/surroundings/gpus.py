"""The kinds of GPUs that are known: what each can compute, hold and move at most.

Peak numbers are NVIDIA's data sheets (dense bfloat16, no sparsity); memory is what nvidia-smi reports as
total.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


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


def recognise(name: str, mebibytes: int) -> GPU:
    """Return the kind of GPU for a name of nvidia-smi, with the memory it shows.

    One that is not in the table has no speed.
    """
    kinds = (GPUS[key] for key, mark in _MARKS.items() if re.search(mark, name))
    kind = next(kinds, GPU(name, 0, None, 0, 0))
    return replace(kind, name=name, memory=mebibytes * 2**20)
