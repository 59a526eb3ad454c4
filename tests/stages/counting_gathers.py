"""train.py that counts how many parameters DeepSpeed holds together while the reference is mixed.

Run under accelerate by test_strategies.py, which names the file for the counts in RLT_TEST_GATHERS.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import deepspeed

import train
from rlt.trainers.reference import MovingReference

counts = {"number": 0, "open": 0, "most_at_once": 0}


class CountingGather(deepspeed.zero.GatheredParameters):
    """Gathers as usual."""

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._count = len(params)
        super().__init__(params, *args, **kwargs)

    def __enter__(self) -> None:
        counts["number"] += self._count
        counts["open"] += self._count
        counts["most_at_once"] = max(counts["most_at_once"], counts["open"])
        super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        counts["open"] -= self._count
        super().__exit__(*exc)


class CountingReference(MovingReference):
    """Mixes as usual."""

    def mix(self) -> None:
        original = deepspeed.zero.GatheredParameters
        deepspeed.zero.GatheredParameters = CountingGather
        try:
            super().mix()
        finally:
            deepspeed.zero.GatheredParameters = original
        if os.environ["RANK"] == "0":
            Path(os.environ["RLT_TEST_GATHERS"]).write_text(json.dumps(counts))


if __name__ == "__main__":
    import rlt.trainers.rl

    rlt.trainers.rl.MovingReference = CountingReference  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(train.main(sys.argv[1:]))
