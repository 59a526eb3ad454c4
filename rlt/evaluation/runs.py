"""Evaluations as `compare` reads them: one model is one run directory, or several of them, pooled."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rlt.errors import DataError
from rlt.evaluation.paired import Shares

VERDICTS = {"ours": "correct", "skythought": "correct_skythought"}
"""By the grader's name, its field in samples.jsonl."""
_PROTOCOL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length")
_PROTOCOL += ("student_prompt_sha256", "layout.tags", "layout.chat_template_kwargs", "layout.date", "grading")
"""What two runs should have in common, in manifest.json; the models themselves differ."""


@dataclass
class Model:
    """A model's verdicts, from one evaluation or from several that are pooled by problem, such as seeds."""

    name: str
    runs: tuple[Path, ...]
    shares: dict[str, Shares] = field(default_factory=dict)
    """By task."""
    groups: dict[str, dict[str, Shares]] = field(default_factory=dict)
    """By task, then by "COLUMN VALUE", the shares of those problems."""
    cut: Counter[str] = field(default_factory=Counter)
    """By task, answers that their length ended."""
    undecided: Counter[str] = field(default_factory=Counter)
    """By task, answers that could not be graded and count as wrong."""
    samples: Counter[str] = field(default_factory=Counter)
    manifests: list[dict[str, Any]] = field(default_factory=list)


def read_models(words: Sequence[str], verdict: str) -> list[Model]:
    """Return the models of `RUN`, `RUN,RUN` and `NAME=RUN,RUN`, each with a name of its own."""
    models = []
    for word in words:
        name, has_name, rest = ("", "", "") if Path(word).exists() else word.partition("=")
        name, places = (name, rest) if has_name else ("", word)
        runs = tuple(Path(place) for place in places.split(",") if place)
        if not runs:
            raise DataError(f"'{word}' names no run: write RUN, RUN,RUN for pooled seeds, or NAME=RUN,RUN")
        models.append(_read(name or " + ".join(run.resolve().name for run in runs), runs, verdict))
    taken: Counter[str] = Counter()
    for model in models:
        taken[model.name] += 1
        if taken[model.name] > 1:
            model.name = f"{model.name} ({taken[model.name]})"
    return models


def _read(name: str, runs: tuple[Path, ...], verdict: str) -> Model:
    model = Model(name, runs)
    pooled: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    by_group: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    problems: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    for run in runs:
        model.manifests.append(read_manifest(run))
        for row in _rows(run):
            if row[verdict] is None:
                continue
            task, problem = row["task"], row["problem_id"]
            problems[run].add((task, problem))
            pooled[task][problem].append(row[verdict])
            for column, value in (row.get("groups") or {}).items():
                by_group[task][f"{column} {value}"].add(problem)
            model.samples[task] += 1
            model.cut[task] += row.get("finish_reason") == "length"
            model.undecided[task] += bool(row.get("undecided"))
    for run in runs[1:]:
        if problems[run] != problems[runs[0]]:
            num = len(problems[run] ^ problems[runs[0]])
            raise DataError(
                f"{runs[0]} and {run} cannot be pooled, because {num} problems are in one of them only: "
                "evaluate both on the same tasks"
            )
    if not any(problems.values()):
        empty = not any(any(_rows(run)) for run in runs)
        what = (
            "answers: remove it and evaluate again"
            if empty
            else "verdicts of that grader: take --grader ours"
        )
        raise DataError(f"{runs[0]} holds no {what}")
    model.shares = {
        task: {problem: fmean(found) for problem, found in of_task.items()}
        for task, of_task in pooled.items()
    }
    model.groups = {
        task: {
            group: {problem: model.shares[task][problem] for problem in sorted(members)}
            for group, members in sorted(groups.items())
        }
        for task, groups in by_group.items()
    }
    return model


def _rows(run: Path) -> Iterator[dict[str, Any]]:
    with _written(run, "samples.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_manifest(run: Path) -> dict[str, Any]:
    """Return what an evaluation's answers depend on."""
    return json.loads(_written(run, "manifest.json").read_text(encoding="utf-8"))


def _written(run: Path, name: str) -> Path:
    if not (run / name).is_file():
        raise DataError(f"{run / name} does not exist: give the run directory of a finished evaluation")
    return run / name


def differences_of_protocol(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what two manifests do not have in common besides the model."""
    found = [
        f"{name} is {json.dumps(first.get(name))} and {json.dumps(second.get(name))}"
        for name in _PROTOCOL
        if first.get(name) != second.get(name)
    ]
    tasks, others = first.get("tasks", {}), second.get("tasks", {})
    asked_otherwise = [
        task
        for task in tasks
        if task in others and tasks[task]["prompts_sha256"] != others[task]["prompts_sha256"]
    ]
    return found + [f"{task} was asked in other words" for task in asked_otherwise]


def read_shares(run: Path, verdict: str = "correct") -> dict[str, Shares]:
    """Return an evaluation's share of right answers, by task and problem; `verdict` names a field."""
    return _read("", (run,), verdict).shares
