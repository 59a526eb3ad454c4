"""Groups made without a time limit; tests/generation/test_nccl.py looks at those of a real ZeRO-3 run."""

from datetime import timedelta

import torch.distributed
from torch.distributed import distributed_c10d

from rlt.models.process_groups import limit_new_groups


def test_torch_takes_the_limit_for_a_new_group_of_either_back_end(monkeypatch):
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        monkeypatch.setattr(distributed_c10d, name, timedelta(minutes=10))
    limit_new_groups(1234.5)
    # What torch.distributed.new_group asks when it is given no timeout. NCCL itself needs a GPU.
    for backend in (torch.distributed.Backend.NCCL, torch.distributed.Backend.GLOO):
        assert distributed_c10d._get_default_timeout(backend) == timedelta(seconds=1234.5)
