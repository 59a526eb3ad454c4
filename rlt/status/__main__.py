"""What a run is doing now: `python -m rlt.status [RUN_DIRECTORY or FOLDER_OF_RUNS] [--json]`.

State, step, last metrics, time left, phase, processes with their logs, servers; of a pipeline, its steps.
A process that seems stuck shows what it does with `py-spy dump --pid PID`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rlt.parser import Parser
from rlt.status.look import find_runs, look
from rlt.status.text import text
from rlt.surroundings.leaving import run_command


def main(words: Sequence[str]) -> int:
    """Print what is known; return the exit code."""
    parser = Parser(prog="python -m rlt status", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print JSON: a list, one object a run")
    typed = parser.parse_args(words)
    states = [look(directory) for directory in find_runs(typed.folder)]
    sys.stdout.write(json.dumps(states, indent=2, ensure_ascii=False) + "\n" if typed.json else text(states))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
