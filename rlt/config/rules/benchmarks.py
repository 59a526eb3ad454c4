"""The names of benchmarks, here and in lighteval, and the rules for records of a user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from difflib import get_close_matches

from rlt.config.schema import BENCHMARKS, LOCAL_TASK, MOST_OPTIONS, SLOT, BenchmarkSettings, EvaluateSettings
from rlt.errors import ConfigError

_SUITES = ("lighteval", "extended", "community", "custom")
_LIGHTEVAL = {
    "math_500": "math500",
    "gpqa:diamond": "gpqa_diamond",
    "olympiad_bench:OE_TO_maths_en_COMP": "olympiadbench",
}
"""Names of lighteval that differ from those used here."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PROGRAMS = re.compile(r"\blcb\b|live_?code_?bench", re.IGNORECASE)
"""LiveCodeBench, by its names here and elsewhere."""


def plain_task(name: str) -> str:
    """Return our name of a task that is written as in lighteval: `lighteval|math_500|0` or `math_500|0`.

    The number is that of worked examples in the prompt. We show none, so another number stays as it is.
    """
    parts = name.split("|")
    task, *numbers = parts[1:] if parts[0] in _SUITES else parts
    if not numbers or numbers[0] != "0":
        return name
    return _LIGHTEVAL.get(task, task)


def task_names(evaluate: EvaluateSettings) -> tuple[str, ...]:
    """Return the names of all benchmarks: the known ones, and those of evaluate.benchmarks."""
    return (*BENCHMARKS, *(record.name for record in evaluate.benchmarks))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the question whether one of the names was meant, "" where none is near."""
    near = sorted(get_close_matches(name, list(names), n=3))
    return f"did you mean {' or '.join(near)}?" if near else ""


def refuse_programs_and_examples(setting: str, name: str) -> None:
    """Raise ConfigError for LiveCodeBench, and for a lighteval name that asks for worked examples."""
    if _PROGRAMS.search(name):
        raise ConfigError(
            f"`{setting}` names {name}, which is LiveCodeBench: its answers are programs, and none is run "
            "here. Remove the name, and take lighteval or LiveCodeBench's own repository for it."
        )
    if "|" in name:
        raise ConfigError(
            f"`{setting}` got '{name}': a lighteval name must end in |0, because prompts show no worked "
            f"examples; write {name.rpartition('|')[0]}|0."
        )


def check_benchmarks(evaluate: EvaluateSettings) -> None:
    """Raise ConfigError for a record of evaluate.benchmarks that cannot be used, asked for or not."""
    names = [record.name for record in evaluate.benchmarks]
    for record in evaluate.benchmarks:
        which = f" {record.name}" if record.name else ""
        for fault in _faults(record, names.count(record.name)):
            raise ConfigError(f"`evaluate.benchmarks`: the record{which} {fault}.")


def _faults(record: BenchmarkSettings, times: int) -> Iterator[str]:
    """Yield what is wrong with a record, with the remedy."""
    if not _NAME.fullmatch(record.name):
        yield "needs a `name` of small letters, digits and _"
    if record.name in (*BENCHMARKS, LOCAL_TASK):
        yield "has the name of a known benchmark: choose another one"
    if times > 1:
        yield "is there twice: remove one"
    for field in fields(record):
        choices, value = field.metadata["choices"], getattr(record, field.name)
        if choices and value not in choices:
            yield f"has `{field.name}` {value}, which must be one of {', '.join(choices)}"
    if not record.question or not record.answer:
        yield "needs columns for `question` and `answer`"
    yield from _faults_of_options(record)
    if record.prompt.count(SLOT) != 1:
        yield f"must hold {SLOT} once in `prompt`, where the question goes"
    if record.most_digits < 0:
        yield "must have `most_digits` of at least 0"
    if any(number is not None and number < 1 for number in (record.num_problems, record.num_samples)):
        yield "must have `num_problems` and `num_samples` of at least 1, or null"


def _faults_of_options(record: BenchmarkSettings) -> Iterator[str]:
    if record.grader in MOST_OPTIONS and not record.options:
        yield f"has the grader {record.grader} but no `options`: give the columns of the options"
    if record.options and record.grader not in MOST_OPTIONS:
        kinds = " or ".join(MOST_OPTIONS)
        yield f"has `options`, which the grader {record.grader} does not read: take {kinds}"
    if record.shuffle and not record.options:
        yield "has `shuffle` but no `options`: remove it"
