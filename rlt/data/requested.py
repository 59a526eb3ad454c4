"""The problems, and the samples of them, that a file asks for: what a collection is to draw again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlt.data.files import read_jsonl
from rlt.data.kept import KeptRows
from rlt.errors import DataError
from rlt.records import Problem


def read_requested(path: str) -> dict[str, list[int]]:
    """Return the requested sample indices by problem_id; an empty list where the file leaves them open."""
    requested: dict[str, list[int]] = {}
    for row in read_jsonl(Path(path)):
        problem_id, index = row.values.get("problem_id"), row.values.get("sample_index")
        if row.fault or not isinstance(problem_id, str):
            raise DataError(f"{path}, line {row.number}: {row.fault or '`problem_id` must be a text'}")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
            raise DataError(f"{path}, line {row.number}: `sample_index` must be 0 or more, got {index!r:.40}")
        if problem_id in requested and (index is None) != (not requested[problem_id]):
            raise DataError(
                f"{path}, line {row.number}: {problem_id} occurs with a `sample_index` and without: "
                "give it in all of its lines or in none"
            )
        requested.setdefault(problem_id, [])
        if index is not None and index not in requested[problem_id]:
            requested[problem_id].append(index)
    if not requested:
        raise DataError(f"{path} names no problem, so there is nothing to collect")
    return requested


def take_requested(rows: KeptRows[Problem], requested: Sequence[str], path: str) -> KeptRows[Problem]:
    """Return the rows of the requested problems; raises DataError for an id that the source does not have."""
    ids = set(requested)
    if unknown := sorted(ids - {problem.id for problem in rows.values}):
        raise DataError(
            f"{path} names {len(unknown)} problems that {rows.source} does not have ({unknown[0]}, for one): "
            "give the dataset that they were collected from"
        )
    return replace(rows, items={number: item for number, item in rows.items.items() if item.id in ids})
