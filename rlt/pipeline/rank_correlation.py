"""Does the reward separate good traces from bad ones? `python -m rlt.pipeline.rank_correlation DIRECTORY`.

Reads what the pipeline `students_by_rank` has left: in `rank_N` the traces that have this rank among their
problem's explanations, in `answers_N` how the student that was trained on them did. Prints and writes
`rank_correlation.md`: the mean reward of each rank's traces beside its student's accuracy, and their
correlation (Pearson). With a handful of ranks it describes, and tests nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import StatisticsError, correlation, fmean

from rlt.errors import DataError
from rlt.io import write_text
from rlt.parser import Parser
from rlt.pipeline.run import NAME
from rlt.surroundings.leaving import run_command
from rlt.text import markdown

_RANK = re.compile(r"rank_(\d+)")


@dataclass(frozen=True)
class Bucket:
    """The traces of one rank, and what they taught."""

    rank: int
    num_traces: int
    score: float
    """The mean reward of its traces."""
    accuracy: Mapping[str, float]
    """Of its student, by task; shares of 1."""


def read_buckets(pipeline: Path) -> list[Bucket]:
    """Return the ranks of a finished pipeline in their order."""
    path = pipeline / NAME
    if not path.is_file():
        raise DataError(f"{path} does not exist: run cfgs/run_cfg/students_by_rank.yaml first")
    places = {step["name"]: Path(step["directory"]) for step in json.loads(path.read_text())["steps"]}
    ranks = sorted(int(match[1]) for name in places if (match := _RANK.fullmatch(name)))
    buckets = []
    for rank in ranks:
        traces, summary = places[f"rank_{rank}"] / "traces.jsonl", places.get(f"answers_{rank}")
        if summary is None or not (summary / "summary.json").is_file() or not traces.is_file():
            raise DataError(
                f"{pipeline} holds no traces and answers of rank {rank}: run its pipeline to its end"
            )
        rows = [json.loads(line) for line in traces.read_text(encoding="utf-8").split("\n") if line]
        scores = [row["score"] for row in rows if row["selected"]]
        if not scores:
            raise DataError(f"{traces} holds no trace of rank {rank}: collect more explanations of each row")
        tasks = json.loads((summary / "summary.json").read_text())["tasks"]
        accuracy = {task: numbers["accuracy"] for task, numbers in tasks.items()}
        buckets.append(Bucket(rank, len(scores), fmean(scores), accuracy))
    if len(buckets) < 2:
        raise DataError(f"{path} has {len(buckets)} steps named rank_N, and a correlation needs two")
    return buckets


def page(buckets: Sequence[Bucket]) -> str:
    """Return the table and the correlations as Markdown."""
    tasks = list(buckets[0].accuracy)
    rows = [["rank", "traces", "mean reward", *(f"{task}, % right" for task in tasks)]]
    for b in buckets:
        shares = (f"{100 * b.accuracy[task]:.1f}" for task in tasks)
        rows.append([str(b.rank), str(b.num_traces), f"{b.score:+.3f}", *shares])
    lines = [
        f"Correlation of reward and accuracy in {task}: {_correlation(buckets, task)}." for task in tasks
    ]
    return markdown(rows) + "\n" + "\n".join(lines) + "\n"


def _correlation(buckets: Sequence[Bucket], task: str) -> str:
    try:
        return f"{correlation([b.score for b in buckets], [b.accuracy[task] for b in buckets]):+.2f}"
    except StatisticsError:
        return "none, since one of the two is the same for all ranks"


def main(words: Sequence[str]) -> int:
    """Print and write the page; return the exit code."""
    parser = Parser(prog="python -m rlt rank-correlation", description="Reward against students' accuracy.")
    parser.add_argument("directory", type=Path, help="the pipeline's directory, results/students_by_rank")
    directory = parser.parse_args(words).directory
    text = page(read_buckets(directory))
    write_text(directory / "rank_correlation.md", text)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
