"""Scores on disk as they are made, so that a killed run continues where it stopped.

A shard holds the scores of a fixed range of traces (jsonl, written whole or not at all). `manifest.json`
describes them: only the same traces, models and settings may continue in a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlt.errors import CheckpointError
from rlt.io import write_text
from rlt.records import Trace
from rlt.traces.manifest import Manifest, open_manifest

logger = logging.getLogger(__name__)
ScoreRow = dict[str, Any]
"""`problem_id`, `sample_index`, `score`, and its breakdown or the reason why there is none."""


class Shards:
    """The shards of one folder."""

    def __init__(self, directory: Path, traces: Sequence[Trace], rows_per_shard: int) -> None:
        self._directory = directory
        starts = range(0, len(traces), rows_per_shard)
        self.parts = [range(start, min(start + rows_per_shard, len(traces))) for start in starts]
        """Which traces each shard holds."""
        self._keys = [(trace.problem.id, trace.sample_index) for trace in traces]

    def open(self, manifest: Manifest) -> list[int]:
        """Return the shards that are still to be scored; raises CheckpointError in another run's folder."""
        open_manifest(self._directory, manifest, "scores")
        return [index for index in range(len(self.parts)) if self.read(index) is None]

    def read(self, index: int) -> list[ScoreRow] | None:
        """Return the rows of a shard, or None where it is not whole."""
        path = self._path(index)
        if not path.is_file():
            return None
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            keys = [(row["problem_id"], row["sample_index"]) for row in rows]
        except (ValueError, KeyError, TypeError):
            keys, rows = [], []
        if keys != [self._keys[i] for i in self.parts[index]]:
            logger.warning("%s is damaged and will be scored again", path)
            return None
        return rows

    def write(self, index: int, rows: Sequence[ScoreRow]) -> None:
        """Write one shard."""
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        write_text(self._path(index), "".join(lines))

    def read_all(self) -> list[ScoreRow]:
        """Return the rows of all shards, in the order of the traces."""
        rows: list[ScoreRow] = []
        for index in range(len(self.parts)):
            part = self.read(index)
            if part is None:
                raise CheckpointError(
                    f"{self._path(index)} was damaged while the run lasted: run the same command again"
                )
            rows += part
        return rows

    def _path(self, index: int) -> Path:
        return self._directory / f"shard_{index:06d}.jsonl"


def traces_digest(traces: Sequence[Trace]) -> str:
    """Return a hash of everything in the traces that a score depends on."""
    digest = hashlib.sha256()
    for trace in traces:
        p = trace.problem
        fields = [p.question, p.solution, p.system, trace.sample_index, trace.explanation]
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()
