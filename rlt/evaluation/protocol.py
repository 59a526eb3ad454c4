"""In whose words was asked, by whose program the second verdict was made, and what protocol that makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rlt.config.original.skythought import TASK_PROMPTS, asks_as_skythought, read_task_prompt
from rlt.config.schema import SLOT, EvaluateSettings
from rlt.tasks.benchmarks.catalog import known

SKYTHOUGHT, LIKE = "skythought", "skythought-like"
THEIRS, TYPED, OURS = "SkyThought's", "those of evaluate.prompts", "ours"
"""Whose words a question is asked in."""
_SETTINGS = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "max_completion_length": 32768,
    "seed": 41,
    "evaluate.option_order": "stream",
}
"""SkyThought's protocol at 4bb8f3e, by names of manifest.json; cfgs/eval_cfg/skythought.yaml sets it."""

WHOSE = ("protocol", "prompt_source", "second_grader")
"""What manifest.json and summary.json say about it."""
Facts = Mapping[str, Any]


def words(task: str, evaluate: EvaluateSettings) -> str:
    """Return what the user's turn says, with SLOT for the question: typed, SkyThought's, or in our words."""
    if task in evaluate.prompts:
        return evaluate.prompts[task]
    if evaluate.original is not None and task in TASK_PROMPTS:
        return read_task_prompt(evaluate.original, task)
    records = known(evaluate.benchmarks)
    return records[task].prompt if task in records else SLOT


def prompt_sources(tasks: Iterable[str], evaluate: EvaluateSettings) -> dict[str, str]:
    """Return in whose words each task is asked; SkyThought's are recognised by their hash."""
    return {
        task: THEIRS
        if asks_as_skythought(task, words(task, evaluate))
        else TYPED
        if task in evaluate.prompts
        else OURS
        for task in tasks
    }


def protocol(manifest: Facts) -> dict[str, Any] | None:
    """Return the name of a manifest's protocol and what it differs in; None for none of SkyThought's kind."""
    grading = manifest["grading"]
    if grading["extraction"] != SKYTHOUGHT:
        return None
    differs = [name for name, value in _SETTINGS.items() if manifest[name] != value]
    differs += ["evaluate.unfinished"] if grading["unfinished"] != "whole" else []
    differs += [f"answers to {t}" for t, facts in manifest["tasks"].items() if facts["num_samples"] != 1]
    differs += [f"words of {task}" for task, source in manifest["prompt_source"].items() if source != THEIRS]
    differs += [] if manifest["second_grader"] else ["grader"]
    return {"name": LIKE if differs else SKYTHOUGHT, "differs_in": differs}


def described(facts: Facts) -> str:
    """Return in sentences what `protocol`, `prompt_source` and `second_grader` say."""
    sentences = []
    if found := facts["protocol"]:
        differs = ", ".join(found["differs_in"])
        aside = f", since it differs from SkyThought's in: {differs}" if differs else " at 4bb8f3e"
        sentences.append(f"The protocol is {found['name']}{aside}.")
    by_source: dict[str, list[str]] = {}
    for task, source in facts["prompt_source"].items():
        by_source.setdefault(source, []).append(task)
    asked = "; ".join(f"{', '.join(tasks)} in {_shown(source)}" for source, tasks in by_source.items())
    sentences.append(f"Asked: {asked}.")
    if program := facts["second_grader"]:
        libraries = ", ".join(f"{name} {version}" for name, version in program["libraries"].items())
        sentences.append(f"The second verdict is that of SkyThought's own program ({libraries}).")
    else:
        sentences.append("There is no second verdict (evaluate.original=DIR adds SkyThought's).")
    return " ".join(sentences)


def _shown(source: str) -> str:
    return {THEIRS: "SkyThought's words", OURS: "our words", TYPED: "the words of evaluate.prompts"}[source]
