"""The time limit of process groups that others make: DeepSpeed makes its own, and names none."""

from __future__ import annotations

from datetime import timedelta

import torch


def limit_new_groups(seconds: float) -> None:
    """Give every process group that is made from now on, without a limit of its own, this one.

    DeepSpeed's `dist.new_group(ranks)` (deepspeed/utils/groups.py, comm/torch.py) takes no timeout. Torch
    would give ten minutes with NCCL and thirty with gloo, whatever `ddp_timeout` is: the processes that wait
    in a gather of ZeRO-3 while rank 0 sends weights would be ended before the sync fails with its own words.
    """
    if not torch.distributed.is_available():
        return
    from torch.distributed import distributed_c10d

    # Torch has no public way. Its `_get_default_timeout` reads these two at each new group.
    assert hasattr(distributed_c10d, "_get_default_timeout"), "torch has changed: see limit_new_groups"
    limit = timedelta(seconds=seconds)
    distributed_c10d.default_pg_timeout = limit
    distributed_c10d.default_pg_nccl_timeout = limit  # pyright: ignore[reportPrivateImportUsage]
