"""A source -> the problems of a stage, with every row that does not fit named.

Lengths need a tokenizer and are judged in lengths.py.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from rlt.config.schema import Config, DataSettings, SubsetSettings
from rlt.data.files import SourceRow
from rlt.data.kept import KeptRows
from rlt.data.rows import choose_format, to_problem
from rlt.data.sources import SourceTable, held_out_rows, read_rows
from rlt.data.text_match import comparable
from rlt.data.values import DOUBTFUL
from rlt.errors import DataError
from rlt.formats.tags import TagStyle
from rlt.records import Problem

logger = logging.getLogger(__name__)
T = TypeVar("T")


def load_problems(data: DataSettings, source: str, tags: TagStyle, *, need_trace: bool) -> KeptRows[Problem]:
    """Return the problems of `source`; `need_trace` (SFT) refuses rows without a trace to train on."""
    table = read_rows(source, split=data.split, config_name=data.config_name, revision=data.revision)
    return _load(data, table, tags, data.subset, need_trace)


def load_eval_problems(config: Config, tags: TagStyle, *, need_trace: bool) -> KeptRows[Problem] | None:
    """Return the held-out problems of evaluation.path, read with the same settings; None without one."""
    if config.evaluation.path is None:
        return None
    with held_out_rows():
        return load_problems(held_out_data(config), config.evaluation.path, tags, need_trace=need_trace)


def held_out_data(config: Config) -> DataSettings:
    """Return how the rows of evaluation.path are read: as the training data, but for split and subset.

    data.config_name and data.revision name a version of the training data, and count only for that.
    """
    data, evaluation = config.data, config.evaluation
    is_same = evaluation.path == config.dataset_id_or_path
    return replace(
        data,
        split=evaluation.split,
        subset=evaluation.subset,
        config_name=data.config_name if is_same else None,
        revision=data.revision if is_same else None,
    )


def count_overlap(train: Iterable[Problem], held_out: Sequence[Problem]) -> int:
    """Return how many held-out problems have a question of the training data, and warn if any does.

    Questions and not ids are compared: an id also changes with the wording of the solution.
    """
    trained_on = {comparable(problem.question) for problem in train}
    count = sum(comparable(problem.question) in trained_on for problem in held_out)
    if count:
        logger.warning("%d of %d held-out problems are in the training data too", count, len(held_out))
    return count


def warn_of_missing_words(problems: Sequence[Problem]) -> None:
    """Warn of solutions that are nothing but a word which may mean a missing value."""
    found = [problem.solution for problem in problems if problem.solution.lower() in DOUBTFUL]
    if found:
        *first, last = map(repr, dict.fromkeys(found))
        words = f"{', '.join(first)} or {last}" if first else last
        what = "%d of %d solutions are only %s: if that means a missing one, remove those rows"
        logger.warning(what, len(found), len(problems), words)


def require_full_step(num_problems: int, config: Config) -> None:
    """Raise DataError when the problems do not fill one step of RL: training would end before it began."""
    needed = config.train_batch_size // config.num_generations
    if num_problems < needed:
        raise DataError(
            f"{config.dataset_id_or_path} leaves {num_problems} problems to train on, but one step needs "
            f"train_batch_size / num_generations = {needed}: add problems, or lower train_batch_size"
        )


def _load(
    data: DataSettings, table: SourceTable, tags: TagStyle, subset: SubsetSettings, need_trace: bool
) -> KeptRows[Problem]:
    # A file of unreadable lines has no columns to choose by; its rows alone say what is wrong.
    fmt = None
    if table.columns:
        fmt = choose_format(data.format, data.columns, table.columns, table.source, data.tag_match)

    def read(row: SourceRow) -> Problem:
        if row.fault is not None or fmt is None:
            raise DataError(row.fault or "an empty object")
        problem = to_problem(row.values, fmt, tags)
        return _with_trace(problem, data, tags) if need_trace else problem

    problems = table.kept().lay_out(read, data)
    warn_of_missing_words(problems.values)
    return take_subset(problems, subset)


def _with_trace(problem: Problem, data: DataSettings, tags: TagStyle) -> Problem:
    """Return the problem with a trace that the teacher can learn to write, and to end."""
    trace = problem.reasoning_trace
    if trace is None and data.missing_trace == "solution":
        trace = problem.solution
    if trace is None:
        raise DataError(
            "`reasoning_trace` is missing, which SFT needs (data.missing_trace=solution puts the solution "
            "there)"
        )
    if tags.explanation.close in trace:
        raise DataError(
            f"the reasoning trace contains {tags.explanation.close}, where its explanation would end "
            f"(layout.tags={tags.name})"
        )
    return replace(problem, reasoning_trace=trace)


def take_subset(rows: KeptRows[T], subset: SubsetSettings) -> KeptRows[T]:
    """Return `subset.n` of the items, chosen by the seed, in their old order.

    The choice is among all rows of the source. For each that was skipped another one is drawn,
    so that no other row of the subset depends on what was skipped.
    """
    if subset.n is None:
        return rows
    usable = dict(zip(rows.positions, rows.items, strict=True))
    if subset.n > len(usable):
        raise DataError(
            f"a subset of n={subset.n} is asked of {rows.source}, which has only {len(usable)} usable rows"
        )
    draw = random.Random(subset.seed)
    drawn = set(draw.sample(range(rows.total), subset.n))
    chosen = drawn & usable.keys()
    others = draw.sample(range(rows.total), rows.total)
    chosen |= set([place for place in others if place in usable.keys() - drawn][: subset.n - len(chosen)])
    return replace(rows, items={usable[place]: rows.items[usable[place]] for place in sorted(chosen)})
