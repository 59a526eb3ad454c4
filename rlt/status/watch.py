"""One run, live: `python -m rlt watch [RUN_DIRECTORY] [--every SECONDS]`, until it ends or Ctrl-C.

What `status` says, and a curve of each metric of its line. Everything comes from the run's files, so it also
works from another machine with the same disk; nothing is asked of the training itself.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlt.errors import DataError
from rlt.parser import Parser
from rlt.rundir.line import LINE_KEYS, metrics_text
from rlt.status.look import METRICS, find_runs, look, training_rows
from rlt.status.text import run_text

_CLEAR = "\x1b[H\x1b[2J"
_BARS = "▁▂▃▄▅▆▇█"
_ON = ("running", "starting")
_LABEL, _RANGE = 12, 24
"""Columns of a curve's label and of its first and last value."""


def main(words: Sequence[str]) -> int:
    """Show the run until it ends; return the exit code."""
    parser = Parser(prog="python -m rlt watch", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="default: 2")
    typed = parser.parse_args(words)
    if not typed.every > 0:
        raise DataError(f"--every must be positive, got {typed.every:g}: remove it for every 2 seconds")
    directory = find_runs(typed.folder)[0]  # the latest, where there are several
    is_terminal = sys.stdout.isatty()
    while True:
        status = look(directory)
        size = shutil.get_terminal_size((80, 24))
        page = run_text(status) + curves(directory, size.columns)
        sys.stdout.write(_CLEAR + fit(page, size.columns, size.lines) if is_terminal else f"{page}\n")
        sys.stdout.flush()
        if status["state"] not in _ON:
            return 0
        time.sleep(typed.every)


def curves(directory: Path, columns: int) -> str:
    """Return a line for each metric of the run's line that has at least two values."""
    rows = training_rows(directory / METRICS)
    lines = []
    for key, label in LINE_KEYS:
        values = [float(row[key]) for row in rows if isinstance(row.get(key), int | float)]
        if len(values) > 1:
            ends = metrics_text({key: values[0]}).split()[-1], metrics_text({key: values[-1]}).split()[-1]
            bars = sparkline(values, max(8, columns - _LABEL - _RANGE))
            lines.append(f"{label:{_LABEL}}{bars}  {' -> '.join(ends)}\n")
    return "\n" + "".join(lines) if lines else ""


def sparkline(values: Sequence[float], columns: int) -> str:
    """Return at most `columns` bars from the lowest to the highest value; a bar is the mean of its steps."""
    groups = min(columns, len(values))
    edges = [len(values) * i // groups for i in range(groups + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    if not high > low:  # constant, or not a number
        return _BARS[0] * groups
    return "".join(_BARS[min(7, int(8 * (mean - low) / (high - low)))] for mean in means)


def fit(page: str, columns: int, lines: int) -> str:
    """Return a page cut to a terminal, so that nothing scrolls."""
    shown = page.splitlines()[: lines - 1]
    return "".join(f"{line[:columns]}\n" for line in shown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
