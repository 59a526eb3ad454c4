"""The rows that tables hold of a problem's explanations, and which row of one table became which of another.

A row is identified by its table and line. Two teachers, or one teacher twice, may write the same text: such
rows stay apart, and a table made from another one continues its rows only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.config.stages import STAGES
from rlt.io import Input
from rlt.lineage.runs import Run, Runs

_MAKER = ("teacher", "sampling")
"""Columns that a stage hands on as they are."""


@dataclass(frozen=True, eq=False)
class Row:
    """A trace as one table holds it."""

    run: Run
    path: Path
    line: int
    """Counted from 1."""
    values: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The table, in each form that it was written in."""
        return [path for path in (self.path, self.path.with_suffix(".parquet")) if path.is_file()]


def rows_of(run: Run, problem: str) -> Iterator[Row]:
    """Yield the traces of a problem in a run's tables; `problem` is an id or the beginning of one."""
    for path in sorted(run.directory.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if problem not in line:
                    continue
                values = json.loads(line)
                is_trace = values.get("explanation") is not None and values.get("sample_index") is not None
                if is_trace and str(values.get("problem_id", "")).startswith(problem):
                    yield Row(run, path, number, values)


def same_explanations(rows: Sequence[Row], runs: Runs) -> list[list[Row]]:
    """Return the rows of each explanation, the one that no other led to in front.

    Tables that were made from one that is not at hand any more are joined by its content.
    """
    by_table: dict[Path, list[Row]] = {}
    for row in rows:
        by_table.setdefault(row.path, []).append(row)
    parents: dict[Row, Row | str] = {}
    for table in by_table.values():
        parents |= _parents(table, rows, runs)
    found: dict[Row | str, list[Row]] = {}
    for row in rows:
        root: Row | str = row
        while isinstance(root, Row) and root in parents:
            root = parents[root]
        found.setdefault(root, []).append(row)

    def order(row: Row) -> tuple[bool, int, str]:
        return row in parents, row.values["sample_index"], str(row.path)

    return [sorted(same, key=order) for same in found.values()]


def is_written_by_a_teacher(run: Run) -> bool:
    """Whether the explanations of a run's tables were made by it, and not read."""
    stage = STAGES.get(str(run.fields.get("stage")))
    return stage is None or not stage.reads_traces


def _parents(table: Sequence[Row], rows: Sequence[Row], runs: Runs) -> dict[Row, Row | str]:
    """Return the row that each row of a table was made from, or what the lost one is known by."""
    run = table[0].run
    if is_written_by_a_teacher(run):
        return {}
    found: dict[Row, Row | str] = {}
    for place, described in enumerate(_sources(run)):
        held = [row for row in rows if row.run is not run and _is_of(row, described, runs)]
        # The numbers of the first table are kept as a rule; where they were counted on, the order decides.
        for is_same in (_same_number, _may_follow)[place > 0 :]:
            for before in (row for row in held if row not in found.values()):
                left = (row for row in table if row not in found and is_same(row, before))
                if (row := next(left, None)) is not None:
                    found[row] = before
        if not held and place == 0:
            of = str(described.get("sha256") or described.get("hub"))
            texts = [row.values["explanation"] for row in table]
            found |= {row: f"{of} {texts[:i].count(texts[i])} {texts[i]}" for i, row in enumerate(table)}
    return found


def _sources(run: Run) -> list[Input]:
    """Return the tables that a run read, in their order."""
    return [described for role, described in run.inputs.items() if role.split()[0] == "dataset"]


def _is_of(row: Row, described: Input, runs: Runs) -> bool:
    if folder := described.get("folder"):
        return row.path.resolve().is_relative_to(Path(folder).resolve())
    return any(described.get("sha256") == runs.digest(path) for path in row.files)


def _may_follow(row: Row, before: Row) -> bool:
    """Return whether a row can have been made from one of another table."""
    now, then = row.values, before.values
    is_numbered_on = now["sample_index"] >= then["sample_index"]
    is_alike = all(now.get(name) == then.get(name) for name in ("explanation", *_MAKER))
    return is_alike and is_numbered_on


def _same_number(row: Row, before: Row) -> bool:
    return _may_follow(row, before) and row.values["sample_index"] == before.values["sample_index"]
