"""Rows that share text with a benchmark, or repeat an earlier row: found, and skipped or reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from rlt.config.schema import SLOT, Config, DataSettings
from rlt.data.decontaminate import NUM_WORDS, Hit, QuestionIndex, first_of_each, questions_of
from rlt.data.kept import NUM_SHOWN, REPEATED, KeptRows, Overlap
from rlt.errors import DataError
from rlt.evaluation.items import load_items
from rlt.formats.tags import tag_style
from rlt.records import Problem, Trace
from rlt.stages.common import progress
from rlt.tasks.benchmarks.catalog import known

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What some rows share with others, by their place among them."""

    hits: Mapping[int, Sequence[Hit]]
    """With questions of benchmarks."""
    repeats: Mapping[int, int]
    """With an earlier row: its place."""


def clean_problems(rows: KeptRows[Problem], config: Config) -> KeptRows[Problem]:
    """Return the problems that data.decontaminate and data.deduplicate leave; each question counts once."""
    return _clean(rows, config, lambda problem: problem, lambda problem: problem.question)


def clean_explained(rows: KeptRows[Problem], config: Config) -> KeptRows[Problem]:
    """Return the same of problems with a trace to train on: each trace of a question counts once."""
    return _clean(rows, config, lambda p: p, lambda p: f"{p.question}\n{p.reasoning_trace}")


def clean_traces(rows: KeptRows[Trace], config: Config) -> KeptRows[Trace]:
    """Return the same of traces."""
    return _clean(rows, config, lambda trace: trace.problem, trace_text)


def trace_text(trace: Trace) -> str:
    """Return the text by which two traces count as one."""
    return f"{trace.problem.question}\n{trace.explanation}"


def find_overlaps(problems: Sequence[Problem], texts: Sequence[str], config: Config) -> Found:
    """Return which rows share text with a benchmark, and which repeat another; `texts` decide the latter."""
    hits: dict[int, Sequence[Hit]] = {}
    if config.data.decontaminate:
        questions = {name: benchmark_questions(name, config) for name in config.data.decontaminate}
        records = known(config.evaluate.benchmarks)
        index = QuestionIndex(questions, frozenset(name for name, task in records.items() if task.private))
        of_problem: dict[str, Sequence[Hit]] = {}  # one may have many traces
        for place, problem in enumerate(progress(problems, "comparing with benchmarks")):
            if problem.id not in of_problem:
                of_problem[problem.id] = index.hits(problem.question, problem.solution)
            if of_problem[problem.id]:
                hits[place] = of_problem[problem.id]
    return Found(hits, {} if config.data.deduplicate == "off" else first_of_each(texts))


def benchmark_questions(name: str, config: Config) -> list[str]:
    """Return the questions of a benchmark, read as `evaluate` reads them, or of a file."""
    if name not in known(config.evaluate.benchmarks):
        return questions_of(name)
    bare = replace(config.evaluate, prompts={name: SLOT})
    tags = tag_style(config.layout.tags)
    items = load_items(name, bare, DataSettings(), config.dataset_id_or_path, tags, config.seed)
    return [item.problem.question for item in items.values]


def _clean(
    rows: KeptRows[T], config: Config, problem: Callable[[T], Problem], text: Callable[[T], str]
) -> KeptRows[T]:
    data, numbers = config.data, list(rows.items)
    if not data.decontaminate and data.deduplicate == "off":
        return rows
    found = find_overlaps([problem(item) for item in rows.values], [text(i) for i in rows.values], config)
    overlaps = []
    dropped: dict[int, str] = {}
    for place, number in enumerate(numbers):
        bad = rows.refused(number, "")
        of_row = [
            Overlap(bad.source, bad.row, hit.benchmark, str(hit), data.on_contaminated == "drop")
            for hit in found.hits.get(place, ())
        ]
        if place in found.repeats:
            first = rows.refused(numbers[found.repeats[place]], "")
            where = f"{first.source}, {rows.unit} {first.row}"
            of_row.append(Overlap(bad.source, bad.row, REPEATED, where, data.deduplicate == "drop"))
        overlaps += of_row
        if reason := next((overlap.of for overlap in of_row if overlap.dropped), None):
            dropped[number] = f"shares its text with {reason}"
    _report(rows, overlaps, data)
    kept = {number: item for number, item in rows.items.items() if number not in dropped}
    if not kept:
        raise DataError(
            f"no row is left: {rows.source}, {rows.unit} {numbers[0]} {dropped[numbers[0]]}; take another "
            "dataset, or data.on_contaminated=report to keep such rows and list them"
        )
    refused = (rows.refused(number, reason) for number, reason in dropped.items())
    return replace(rows, items=kept, skipped=(*rows.skipped, *refused), overlaps=tuple(overlaps))


def _report(rows: KeptRows[T], overlaps: Sequence[Overlap], data: DataSettings) -> None:
    """Log how many rows share text with each set, and the first of them."""
    for name in (*data.decontaminate, *([REPEATED] if data.deduplicate != "off" else ())):
        of_set = [overlap for overlap in overlaps if overlap.set == name]
        mode = data.deduplicate if name == REPEATED else data.on_contaminated
        what = "the whole text" if name == REPEATED else f"{NUM_WORDS} words, or a whole question,"
        shares = f"{len(of_set)} of {len(rows.items)} rows share {what} with {name}"
        shown = "".join(f"\n  {rows.unit} {one.row}: {one.of}" for one in of_set[:NUM_SHOWN])
        more = f"\n  and {len(of_set) - NUM_SHOWN} more" if len(of_set) > NUM_SHOWN else ""
        fate = {"drop": "; skipped", "report": "; kept"}[mode] if of_set else ""
        log = logger.warning if of_set else logger.info
        log("%s: %s%s%s%s", rows.source, shares, fate, shown, more)
