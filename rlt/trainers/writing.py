"""The completions of one step while servers write them, which may begin a step before they are needed.

A checkpoint holds those that were begun before it and are needed after it: weights that are gone have written
them, so a resumed run could not draw them again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from rlt.errors import CheckpointError
from rlt.generation.parallel import Arrivals
from rlt.generation.types import Sampling
from rlt.io import write_atomically, write_json
from rlt.records import Completion

FOLDER = "written_ahead"
"""Of a checkpoint: the completions of the step after it."""
_ROWS, _ASKED, _WEIGHTS = "completions.parquet", "asked.json", "weights"


@dataclass(frozen=True)
class Asked:
    """What a step asks the servers for, the same on every process but for `start`."""

    rows_per_process: list[int]
    start: int
    """This process's first row among those of all."""
    group: int
    """Consecutive rows that share a prompt."""
    prompts: list[list[int]]
    """Of the groups, in order."""
    seeds: list[int]
    sampling: Sampling

    @property
    def num_rows(self) -> int:
        """Rows of all processes."""
        return sum(self.rows_per_process)

    def is_for(self, prompts: Sequence[Sequence[int]]) -> bool:
        """Whether this process's rows have these prompts."""
        rows = range(self.start, self.start + len(prompts))
        return all(self.prompts[row // self.group] == list(p) for row, p in zip(rows, prompts, strict=True))

    def digest(self) -> str:
        """Return what tells apart all that shapes the completions but the weights."""
        asked = [self.group, self.prompts, self.seeds, asdict(self.sampling)]
        return sha256(json.dumps(asked).encode()).hexdigest()


@dataclass(frozen=True)
class Written:
    """A completion, and the updates that the weights had seen which wrote it."""

    completion: Completion
    updates: int


class Writing:
    """What was asked for, and what has come of it; every process holds all that has come."""

    def __init__(self, asked: Asked, updates: int) -> None:
        """`updates`: how many the weights have seen that write from now on."""
        self.asked = asked
        self.updates = updates
        self.found: dict[int, Written] = {}
        """By row, counted over all processes."""
        self.arrivals: Arrivals[tuple[int, Completion]] | None = None
        """Requests on their way, on the main process."""

    def add(self, rows: Sequence[tuple[int, Completion]]) -> None:
        """Take rows that have come."""
        self.found.update({row: Written(completion, self.updates) for row, completion in rows})

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return len(self.found) == self.asked.num_rows

    def is_by(self, updates: int) -> bool:
        """Whether weights that have seen so many updates write all of it."""
        return self.updates == updates and all(one.updates == updates for one in self.found.values())

    def own(self, count: int) -> list[Completion]:
        """Return the completions of this process's rows, which are so many."""
        start = self.asked.start
        return [self.found[row].completion for row in range(start, start + count)]

    def staleness(self, updates: int) -> list[int]:
        """Return by how many updates each row is older than weights that have seen so many."""
        return [updates - self.found[row].updates for row in sorted(self.found)]


@dataclass(frozen=True)
class Kept:
    """What a checkpoint holds of a writing."""

    digest: str
    """Of what was asked for."""
    updates: int
    found: dict[int, Written]
    weights: Path | None
    """Those that were to write what is missing."""


def keep(writing: Writing, checkpoint: Path, weights: Path | None) -> None:
    """Write what has come into a checkpoint, and, where rows are missing, the weights that write them."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = checkpoint / FOLDER
    rows = sorted(writing.found.items())
    columns = {
        "row": pa.array([row for row, _ in rows], pa.int64()),
        "updates": pa.array([written.updates for _, written in rows], pa.int64()),
        "token_ids": pa.array([w.completion.token_ids for _, w in rows], pa.list_(pa.int32())),
        "logprobs": pa.array([w.completion.logprobs for _, w in rows], pa.list_(pa.float64())),
        "finish_reason": pa.array([w.completion.finish_reason for _, w in rows], pa.string()),
    }
    try:
        write_atomically(folder / _ROWS, lambda path: parquet.write_table(pa.table(columns), path))
        if weights is not None and not writing.is_whole:
            shutil.copytree(weights, folder / _WEIGHTS, dirs_exist_ok=True)
        write_json(folder / _ASKED, {"asked": writing.asked.digest(), "updates": writing.updates})
    except OSError as error:
        raise CheckpointError(
            f"the completions of the next step cannot be written to {folder} ({error}); make room there and "
            "resume from the checkpoint before"
        ) from error


def kept_in(checkpoint: Path) -> Kept | None:
    """Return what a checkpoint holds of the step after it; None where nothing was written ahead of it."""
    from pyarrow import parquet

    folder = checkpoint / FOLDER
    if not folder.is_dir():
        return None
    try:
        asked = json.loads((folder / _ASKED).read_text())
        rows = parquet.ParquetFile(folder / _ROWS).read().to_pylist()
        found = {
            row["row"]: Written(
                Completion(tuple(row["token_ids"]), tuple(row["logprobs"]), row["finish_reason"]),
                row["updates"],
            )
            for row in rows
        }
        weights = folder / _WEIGHTS
        return Kept(asked["asked"], asked["updates"], found, weights if weights.is_dir() else None)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({type(error).__name__}: {error}): resume from an older checkpoint, or "
            "remove the folder, and the completions of the next step are written by the checkpoint's weights"
        ) from error
