"""Which way the weights take to the servers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from rlt.generation.checkpoint_sync import CheckpointSync
from rlt.generation.nccl_group import NCCLGroup, cuda_device
from rlt.generation.nccl_sync import NCCLSync
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weight_sync import WeightSync


def make_weight_sync(
    kind: str, pool: VLLMPool, *, device: torch.device, directory: Path, timeout: float
) -> WeightSync:
    """Return the sync for the setting `generation.weight_sync`: auto, nccl or checkpoint."""
    if kind == "checkpoint" or (kind == "auto" and device.type != "cuda"):
        return CheckpointSync(pool, directory, timeout=timeout)
    return NCCLSync(pool, partial(NCCLGroup, cuda_device(device)), timeout=timeout)
