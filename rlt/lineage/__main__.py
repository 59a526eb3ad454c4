"""Where a trace or a model comes from: `python -m rlt.lineage PROBLEM_ID[:SAMPLE] [FOLDER …]`.

Runs are found by the content that they read and wrote, so moved and renamed directories keep their history.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rlt.errors import DataError
from rlt.io import describe_input
from rlt.lineage.chain import history
from rlt.lineage.runs import Run, Runs
from rlt.lineage.text import history_text, trace_text
from rlt.lineage.trace import find_traces, trace_lineage, with_index
from rlt.parser import Parser
from rlt.surroundings.leaving import run_command


def main(words: Sequence[str]) -> int:
    """Print what is asked for; return the exit code."""
    parser = Parser(
        prog="python -m rlt lineage",
        description="Where a trace or a model comes from, and what was made of it.",
    )
    parser.add_argument(
        "what",
        metavar="ID_OR_PATH",
        help="problem_id or its beginning, with :SAMPLE for one of its explanations; or a model's folder, a "
        "run directory, a file of traces",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("results")], help="folders with run directories"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    typed = parser.parse_args(words)
    runs = Runs(typed.folders)
    if Path(typed.what).exists():
        found_out = history(run_behind(Path(typed.what), runs), runs)
        text = history_text(found_out)
    else:
        problem, index = read_id(typed.what)
        found = find_traces(problem, None, runs)
        found_out = [trace_lineage(rows, runs, found) for rows in with_index(found, index)]
        text = "\n".join(map(trace_text, found_out))
    sys.stdout.write(json.dumps(found_out, indent=2, ensure_ascii=False) + "\n" if typed.json else text)
    return 0


def read_id(text: str) -> tuple[str, int | None]:
    """Return problem_id and sample_index of what was typed."""
    problem, colon, index = text.partition(":")
    if not problem or (colon and not index.isdecimal()):
        raise DataError(f"`{text}` is neither a path that exists nor PROBLEM_ID or PROBLEM_ID:SAMPLE")
    return problem, int(index) if colon else None


def run_behind(path: Path, runs: Runs) -> Run:
    """Return the run that wrote a file or folder; DataError says where its history ends."""
    origin = runs.origin(describe_input(str(path)))
    if origin.run is None:
        raise DataError(str(origin.end).rstrip("."))
    return origin.run


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
