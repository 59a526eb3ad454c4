"""Samples on disk as they are finished, so that a killed collection continues where it stopped.

journal.jsonl holds one line per sample, in the order in which they were done. Samples that are drawn together
are a unit: of a unit that a kill cut short, and of a torn last line, nothing is kept.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlt.io import write_text
from rlt.traces.manifest import Manifest, open_manifest

logger = logging.getLogger(__name__)

NAME = "journal.jsonl"
JournalRow = Mapping[str, Any]
"""The values of a sample's `fields`, and what its reader keeps of the completion."""
FIELDS = ("problem_id", "sample_index")
SYNC_EVERY = 1.0
"""Seconds: what a machine without power may lose. A killed process loses nothing that it has appended."""
Key = tuple[str | int, ...]
"""The values of a sample's `fields`: problem_id and sample_index, with others before them if need be."""
Append = Callable[[Sequence[JournalRow]], None]


class Journal:
    """The samples of one folder, `what` they are called."""

    def __init__(
        self,
        directory: Path,
        units: Sequence[Sequence[Key]],
        what: str = "explanations",
        fields: Sequence[str] = FIELDS,
    ) -> None:
        self.path = directory / NAME
        self.what = what
        self._fields = tuple(fields)
        self.rows: dict[Key, JournalRow] = {}
        """Every finished sample."""
        self._units = units

    def open(self, manifest: Manifest) -> list[int]:
        """Return the units that are still to be drawn; raises CheckpointError in another run's folder."""
        open_manifest(self.path.parent, manifest, self.what)
        text = self.path.read_bytes() if self.path.is_file() else b""
        *lines, torn = text.split(b"\n")
        found: dict[Key, tuple[bytes, JournalRow]] = {}
        for line in lines:
            if (row := self._parsed(line)) is not None:
                found.setdefault(self._key(row), (line, row))
        pending = [i for i, unit in enumerate(self._units) if not all(key in found for key in unit)]
        whole = {key for unit in self._units for key in unit}
        whole -= {key for i in pending for key in self._units[i]}
        self.rows = {key: row for key, (_, row) in found.items() if key in whole}
        kept = b"".join(line + b"\n" for key, (line, _) in found.items() if key in whole)
        if kept != text:
            dropped = len(lines) + bool(torn) - len(self.rows)
            logger.warning("%s: %d lines of unfinished work are dropped", self.path, dropped)
            write_text(self.path, kept.decode())
        return pending

    @contextmanager
    def appending(self) -> Iterator[Append]:
        """Open the file for a function that appends the rows of one unit."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            synced = time.monotonic()

            def append(rows: Sequence[JournalRow]) -> None:
                nonlocal synced
                lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
                file.write("".join(lines).encode())
                file.flush()
                self.rows |= {self._key(row): dict(row) for row in rows}
                if time.monotonic() - synced >= SYNC_EVERY:
                    os.fsync(file.fileno())
                    synced = time.monotonic()

            yield append
            os.fsync(file.fileno())

    def _key(self, row: JournalRow) -> Key:
        return tuple(row[field] for field in self._fields)

    def _parsed(self, line: bytes) -> JournalRow | None:
        """Return a line's row, or None where a crash of the machine has damaged it."""
        try:
            row = json.loads(line)
            is_whole = isinstance(row, dict) and all(isinstance(part, str | int) for part in self._key(row))
        except (ValueError, KeyError):
            return None
        return row if is_whole else None
