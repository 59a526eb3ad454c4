"""The benchmarks by name."""

from __future__ import annotations

from rlt.tasks.benchmarks import aime24, countdown, gpqa_diamond, gsm8k, math500
from rlt.tasks.benchmarks.task import Task

BENCHMARKS: dict[str, Task] = {
    task.name: task for task in (m.TASK for m in (aime24, math500, gpqa_diamond, gsm8k, countdown))
}
