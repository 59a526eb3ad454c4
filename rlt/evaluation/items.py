"""The questions of an evaluation, from the Hub or from files, and the samples to draw of each."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlt.config.schema import LOCAL_TASK, SLOT, BenchmarkSettings, DataSettings, EvaluateSettings
from rlt.data.files import SourceRow
from rlt.data.kept import KeptRows
from rlt.data.load import load_problems, take_subset
from rlt.data.sources import SourceTable, read_rows
from rlt.errors import DataError
from rlt.evaluation.protocol import words
from rlt.formats.tags import TagStyle
from rlt.generation.seeds import spread_seed
from rlt.records import Problem, problem_id
from rlt.tasks.benchmarks.catalog import known
from rlt.tasks.benchmarks.task import ORDERS, Order, reader

logger = logging.getLogger(__name__)

ENOUGH, MOST_SAMPLES = 1000, 32
"""Samples of one task, and at most of one problem: about what MATH-500 and AIME get."""


@dataclass(frozen=True)
class Item:
    """A question that is asked."""

    task: str
    problem: Problem
    """`question` is the whole user turn, `solution` the reference; the id is that of the source's texts."""
    grading: str
    order: tuple[int, ...] | None = None
    """As in `Question`."""
    is_private: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)
    """As in `Question`."""


@dataclass(frozen=True)
class Asked:
    """An item with its prompt."""

    item: Item
    prompt_ids: list[int]
    prompt_sha256: str
    """Of the prompt's text, chat template included."""


@dataclass(frozen=True)
class EvalSample:
    """One answer that is to be drawn."""

    asked: Asked
    sample_index: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What a sample is known by: task, problem_id, sample_index."""
        return self.asked.item.task, self.asked.item.problem.id, self.sample_index

    @property
    def prompt_ids(self) -> list[int]:
        """What the student is asked with."""
        return self.asked.prompt_ids

    def seed(self, seed: int) -> int:
        """Return the sample's own seed: no other task, problem or sample moves it."""
        return spread_seed(seed, int(self.asked.item.problem.id, 16), self.sample_index)


def load_items(
    name: str, evaluate: EvaluateSettings, data: DataSettings, source: str, tags: TagStyle, seed: int
) -> KeptRows[Item]:
    """Return the questions of a task; `source` is dataset_id_or_path, for the task `problems`."""
    prompt = words(name, evaluate)
    if name == LOCAL_TASK:
        return _local_items(source, prompt, evaluate.grader, data, tags)
    task, where = known(evaluate.benchmarks)[name], task_source(name, evaluate, source)
    table = _read_file(where, data) if name in evaluate.paths else _read_hub(task, evaluate)
    rows = table.kept()
    items = rows.lay_out(_reader(task, prompt, ORDERS[evaluate.option_order](seed)), data)
    kept = {number: item for number, item in items.items.items() if item is not None}
    if not kept:
        raise DataError(f"{where} holds no row of {name}: give another file in evaluate.paths")
    if task.num_problems not in (None, len(kept)):
        logger.warning("%s has %d problems here, and %d in all", name, len(kept), task.num_problems)
    whole = KeptRows(
        items.source, items.unit, kept, items.total, items.skipped, items.places, numbers=items.numbers
    )
    return take_subset(whole, data.subset)


def _read_file(path: str, data: DataSettings) -> SourceTable:
    return read_rows(path, split=data.split)


def _read_hub(task: BenchmarkSettings, evaluate: EvaluateSettings) -> SourceTable:
    assert task.hub is not None, "validate() has asked for a path"
    revision = task_revision(task.name, evaluate)
    try:
        return read_rows(task.hub, split=task.split, config_name=task.config_name, revision=revision)
    except DataError as error:
        raise DataError(
            f"{error}; evaluate.paths={{{task.name}: FILE}} reads a file with the same columns"
        ) from error


def task_source(name: str, evaluate: EvaluateSettings, source: str) -> str:
    """Return the file or the Hub name that a task is read from."""
    if name == LOCAL_TASK:
        return source
    path = evaluate.paths.get(name) or known(evaluate.benchmarks)[name].hub
    assert path is not None, "validate() has asked for a path"
    return path


def task_revision(name: str, evaluate: EvaluateSettings) -> str | None:
    """Return the commit, branch or tag of a benchmark's dataset; None is the newest, or a file."""
    if name in evaluate.paths:
        return None
    return evaluate.revisions.get(name, known(evaluate.benchmarks)[name].revision)


def _reader(task: BenchmarkSettings, prompt: str, order: Order) -> Callable[[SourceRow], Item | None]:
    read_question = reader(task)

    def read(row: SourceRow) -> Item | None:
        if row.fault is not None:
            raise DataError(row.fault)
        question = read_question(row.values, order)
        if question is None:
            return None
        asked = prompt.replace(SLOT, question.text)
        problem = Problem(problem_id(*question.source), asked, question.reference)
        return Item(task.name, problem, task.grader, question.order, task.private, question.groups)

    return read


def _local_items(
    source: str, prompt: str, grading: str, data: DataSettings, tags: TagStyle
) -> KeptRows[Item]:
    """Return the rows of any dataset as questions; `answer` is the reference, or else the solution."""
    columns = read_rows(
        source, split=data.split, config_name=data.config_name, revision=data.revision
    ).columns
    has_answers_alone = {"question", "answer"} <= {*columns} and "solution" not in columns
    if has_answers_alone and not data.columns:
        data = replace(data, columns={"solution": "answer"})
    problems = load_problems(data, source, tags, need_trace=False)

    def item(problem: Problem) -> Item:
        asked = prompt.replace(SLOT, problem.question)
        reference = problem.answer or problem.solution
        return Item(LOCAL_TASK, replace(problem, question=asked, solution=reference), grading)

    return problems.map(item)


def num_samples(name: str, num_problems: int, evaluate: EvaluateSettings) -> int:
    """Return how many samples of each problem of a task are drawn: few problems need many."""
    if evaluate.num_samples is not None:
        return evaluate.num_samples
    of_task = None if name == LOCAL_TASK else known(evaluate.benchmarks)[name].num_samples
    return of_task or min(MOST_SAMPLES, math.ceil(ENOUGH / num_problems))


def plan_samples(asked: Sequence[Asked], per_problem: Mapping[str, int]) -> list[EvalSample]:
    """Return the samples in the order of the questions; `per_problem` gives how many by task.

    A problem that a task holds twice is drawn twice as often and counts as one.
    """
    next_index: dict[tuple[str, str], int] = defaultdict(int)
    samples = []
    for one in asked:
        key = one.item.task, one.item.problem.id
        for _ in range(per_problem[one.item.task]):
            samples.append(EvalSample(one, next_index[key]))
            next_index[key] += 1
    return samples


def prompts_digest(asked: Sequence[Asked]) -> str:
    """Return a hash over the prompts and references of a task, in their order."""
    digest = hashlib.sha256()
    for one in asked:
        parts: list[Any] = [one.item.problem.id, one.prompt_sha256, one.item.problem.solution]
        digest.update(json.dumps(parts).encode() + b"\n")
    return digest.hexdigest()
