"""Print the table of docs/evaluation.md: `python -m rlt.tasks.benchmarks`."""

from __future__ import annotations

import sys

from rlt.tasks.benchmarks.catalog import table

head, *rows = table()
sys.stdout.write(
    "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows)),
)
