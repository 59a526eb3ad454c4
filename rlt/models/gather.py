"""What processes share: ZeRO-3 parameters made whole for a while, and numbers to agree on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:  # so that scripts/bench_gpu.py needs torch and transformers alone
    from accelerate import Accelerator


@contextmanager
def gathered(
    parameters: Iterable[nn.Parameter], *, written: bool = False, only_partitioned: bool = False
) -> Iterator[bool]:
    """Make partitioned parameters whole; yield whether what this process writes to them counts.

    Collective where they are partitioned: every process has to come here with the same ones. `written` keeps
    what the main process writes; without partitions every process holds the parameters and has to write.
    `only_partitioned` leaves alone what is whole at the moment (DeepSpeed keeps it so while its model runs):
    gathering it here would partition it on the way out.
    """
    partitioned: list[Any] = [p for p in parameters if hasattr(p, "ds_id")]
    if only_partitioned:
        partitioned = [p for p in partitioned if p.ds_status.name != "AVAILABLE"]
    if not partitioned:
        yield True
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if written else None):
        yield not written or deepspeed.comm.get_rank() == 0


def max_over_processes(accelerator: Accelerator, value: int) -> int:
    """Return the largest of the processes' values; collective."""
    gathered: Any = accelerator.gather(torch.tensor([value], device=accelerator.device))
    return int(gathered.max())


def rows_of_all(accelerator: Accelerator, rows: list[Any]) -> tuple[list[Any], int]:
    """Return the rows of all processes in their order, and where this one's begin; collective."""
    from accelerate.utils import gather_object

    everywhere: list[list[Any]] = gather_object([rows])
    first = sum(map(len, everywhere[: accelerator.process_index]))
    return [row for of_process in everywhere for row in of_process], first
