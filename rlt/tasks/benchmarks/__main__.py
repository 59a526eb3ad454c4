"""Print the table of docs/evaluation.md: `python -m rlt benchmarks`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rlt.parser import Parser
from rlt.surroundings.leaving import run_command
from rlt.tasks.benchmarks.catalog import table


def main(words: Sequence[str]) -> int:
    """Print the table; return the exit code."""
    Parser(prog="python -m rlt benchmarks", description=__doc__).parse_args(words)
    head, *rows = table()
    sys.stdout.write(
        "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows)),
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
