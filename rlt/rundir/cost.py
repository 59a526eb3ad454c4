"""What runs took: time, GPUs, and the tokens that were generated for training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from rlt.rundir.metrics import GENERATED, NAME, read_metrics
from rlt.rundir.run_json import RunJson
from rlt.rundir.run_record import read_run
from rlt.text import duration


@dataclass(frozen=True)
class Cost:
    """Of one run, or of several."""

    seconds: float = 0.0
    gpu_hours: float = 0.0
    tokens: int = 0
    """Generated for training: completions of RL, traces. Those of evaluations do not count."""

    def __str__(self) -> str:
        facts = [duration(self.seconds)]
        facts += [f"{self.gpu_hours:.2f} GPU hours"] if self.gpu_hours else []
        facts += [f"{self.tokens:,} generated tokens"] if self.tokens else []
        return ", ".join(facts)


def cost_of(directory: Path) -> Cost:
    """Return what a run took, with the earlier runs in its directory that it continues."""
    fields = read_run(directory)
    ends = [fields, *fields.get("earlier", [])]
    return Cost(
        seconds=sum(end.get("seconds") or 0.0 for end in ends),
        gpu_hours=sum(end.get("gpu_hours") or 0.0 for end in ends),
        tokens=_generated(directory, fields),
    )


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum."""
    seconds, gpu_hours, tokens = zip(*map(astuple, costs), strict=True)
    return Cost(sum(seconds), sum(gpu_hours), sum(tokens))


def _generated(directory: Path, fields: RunJson) -> int:
    if fields.get("stage") == "collect_traces":
        return int((fields.get("results") or {}).get("tokens", 0))
    metrics = directory / NAME
    rows = read_metrics(metrics) if metrics.is_file() else []
    return int(max((row.get(GENERATED) or 0 for row in rows), default=0))
