"""`python -m rlt regrade FILE… --output DIR`: grade the samples of another tool; nothing is generated.

The files are details of lighteval (parquet or JSON), results.json of SkyThought, results of evalchemy, or
JSONL with `answer` and `text`. DIR becomes the folder of an evaluation, as `python -m rlt compare` takes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rlt.errors import DataError
from rlt.formats.tags import TAG_NAMES, tag_style
from rlt.parser import Parser
from rlt.regrade.read import read_samples
from rlt.regrade.write import Grading, write_evaluation
from rlt.surroundings.leaving import run_command
from rlt.tasks.benchmarks.catalog import BENCHMARKS
from rlt.tasks.extraction import ORDERS


def main(words: Sequence[str]) -> int:
    """Write the folder, and print its summary; return the exit code."""
    parser = Parser(
        prog="python -m rlt regrade",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--task", help="name of the samples that name none (default: from the file's path)")
    parser.add_argument("--extraction", choices=ORDERS, default="lenient", help="as evaluate.extraction")
    parser.add_argument(
        "--unfinished", choices=("wrong", "whole"), default="wrong", help="as evaluate.unfinished"
    )
    parser.add_argument("--tags", choices=TAG_NAMES, default="bespoke", help="of thoughts and solutions")
    typed = parser.parse_args(words)
    if typed.output.exists() and any(typed.output.iterdir()):
        raise DataError(f"--output {typed.output} is not empty: give a new folder")
    samples = [sample for path in typed.files for sample in read_samples(path, typed.task or task_of(path))]
    grading = Grading(typed.extraction, typed.unfinished, tag_style(typed.tags))
    page = write_evaluation(samples, typed.files, typed.output, grading)
    sys.stdout.write(page)
    return 0


def task_of(path: Path) -> str:
    """Return the benchmark that a path names, as SkyThought's folders do; `samples` where it names none."""
    normal = str(path).lower().replace("-", "_").replace("math_500", "math500")
    named = [name for name in BENCHMARKS if name in normal]
    return max(named, key=len) if named else "samples"


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
