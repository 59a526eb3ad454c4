"""A source -> the problems of a stage, with every row that does not fit named.

Lengths need a tokenizer and are judged in lengths.py.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlt.config.schema import DataSettings, SubsetSettings
from rlt.data.files import SourceRow
from rlt.data.rows import RowFormat, choose_format, to_problem
from rlt.data.sources import SourceTable, read_rows
from rlt.errors import DataError
from rlt.formats.tags import TagStyle
from rlt.records import Problem

logger = logging.getLogger(__name__)

NUM_SHOWN = 5


@dataclass(frozen=True)
class BadRow:
    """A row that is not a problem."""

    row: int
    """Its place, counted from 1: the line of a jsonl or csv file, the row of everything else."""
    reason: str


@dataclass(frozen=True)
class LoadedProblems:
    """What a source holds."""

    problems: list[Problem]
    """In the order of the source."""
    skipped: list[BadRow]
    total: int
    """Rows of the source, before skipping and before the choice of a subset."""


def load_problems(data: DataSettings, source: str, tags: TagStyle, *, need_trace: bool) -> LoadedProblems:
    """Return the problems of `source`; `need_trace` (SFT) refuses rows without a reasoning trace."""
    table = read_rows(source, split=data.split, config_name=data.config_name, revision=data.revision)
    return _load(data, table, tags, data.subset, need_trace)


def load_eval_problems(
    data: DataSettings, source: str, tags: TagStyle, *, need_trace: bool
) -> LoadedProblems | None:
    """Return the held-out problems of data.eval_path, read with the same settings; None without one.

    `source` is the training data: data.config_name and data.revision name a version of that dataset
    and count for another one only if it is the same.
    """
    if data.eval_path is None:
        return None
    is_same = data.eval_path == source
    table = read_rows(
        data.eval_path,
        split=data.eval_split,
        config_name=data.config_name if is_same else None,
        revision=data.revision if is_same else None,
    )
    return _load(data, table, tags, data.eval_subset, need_trace)


def count_overlap(train: Sequence[Problem], held_out: Sequence[Problem]) -> int:
    """Return how many held-out problems have a question of the training data, and warn if any does.

    Questions and not ids are compared: an id also changes with the wording of the solution.
    """
    trained_on = {problem.question.strip() for problem in train}
    count = sum(problem.question.strip() in trained_on for problem in held_out)
    if count:
        logger.warning("%d of %d held-out problems are in the training data too", count, len(held_out))
    return count


def _load(
    data: DataSettings, table: SourceTable, tags: TagStyle, subset: SubsetSettings, need_trace: bool
) -> LoadedProblems:
    problems: list[Problem] = []
    skipped: list[BadRow] = []
    # A file of unreadable lines has no columns to choose by; its rows alone say what is wrong.
    fmt = choose_format(data.format, data.columns, table.columns, table.source) if table.columns else None
    for row in table.rows:
        try:
            problems.append(_read_row(row, fmt, tags, data, need_trace))
        except DataError as error:
            skipped.append(BadRow(row.number, str(error)))
    if skipped and data.on_bad_row == "error":
        raise DataError(_first_bad(table, skipped))
    if skipped:
        logger.warning("%s", _list_skipped(table, skipped))
    if not problems:
        raise DataError(f"{table.source} holds no usable row: {_first_bad(table, skipped)}")
    return LoadedProblems(take_subset(problems, subset, table.source), skipped, len(table.rows))


def _read_row(
    row: SourceRow, fmt: RowFormat | None, tags: TagStyle, data: DataSettings, need_trace: bool
) -> Problem:
    if row.fault is not None or fmt is None:
        raise DataError(row.fault or "an empty object")
    problem = to_problem(row.values, fmt, tags)
    if problem.reasoning_trace is not None or not need_trace:
        return problem
    if data.missing_trace == "solution":
        return replace(problem, reasoning_trace=problem.solution)
    raise DataError(
        "`reasoning_trace` is missing, which SFT needs (data.missing_trace=solution puts the solution there)"
    )


def take_subset(problems: list[Problem], subset: SubsetSettings, source: str) -> list[Problem]:
    """Return `subset.n` of the problems, chosen by the seed, in their old order."""
    if subset.n is None:
        return problems
    if subset.n > len(problems):
        raise DataError(
            f"a subset of n={subset.n} is asked of {source}, which has only {len(problems)} usable rows"
        )
    chosen = sorted(random.Random(subset.seed).sample(range(len(problems)), subset.n))
    return [problems[i] for i in chosen]


def _first_bad(table: SourceTable, bad: Sequence[BadRow]) -> str:
    first, others = bad[0], bad[1:]
    more = ""
    if others:
        shown = ", ".join(str(row.row) for row in others[:NUM_SHOWN])
        dots = ", …" if len(others) > NUM_SHOWN else ""
        rows = "row is" if len(others) == 1 else "rows are"
        more = f"; {len(others)} more {rows} bad ({table.unit} {shown}{dots})"
    return (
        f"{table.source}, {table.unit} {first.row}: {first.reason}{more}; "
        "correct it, or leave such rows out with data.on_bad_row=skip"
    )


def _list_skipped(table: SourceTable, bad: Sequence[BadRow]) -> str:
    shown = "".join(f"\n  {table.unit} {row.row}: {row.reason}" for row in bad[:NUM_SHOWN])
    more = f"\n  and {len(bad) - NUM_SHOWN} more" if len(bad) > NUM_SHOWN else ""
    return f"{table.source}: skipped {len(bad)} of {len(table.rows)} rows{shown}{more}"
