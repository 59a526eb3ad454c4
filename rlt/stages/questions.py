"""What an evaluation asks of a student: the questions of its tasks, and what its answers go back to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from rlt.config.original.skythought import grader_paths, grader_versions
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import LOCAL_TASK, Config, SubsetSettings
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths, keep_shortest
from rlt.data.load import take_subset
from rlt.evaluation.items import (
    Asked,
    Item,
    load_items,
    prompts_digest,
    task_revision,
    task_source,
)
from rlt.evaluation.protocol import SKYTHOUGHT, prompt_sources, protocol
from rlt.formats.layout import StudentLayout
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.io import Input, describe_input
from rlt.models.load import load_context, load_tokenizer
from rlt.rundir.run_record import Source, code_version, library_versions
from rlt.stages.common import progress
from rlt.stages.layouts import student_layout, template_facts
from rlt.stages.sampling import (
    engine_facts,
)
from rlt.traces.manifest import Manifest

Tables = Mapping[str, KeptRows[Asked]]
"""The questions by task."""


def origins(
    config: Config, facts: Manifest, sources: Mapping[str, Source | None], pool: VLLMPool | None
) -> dict[str, Any]:
    """Return what the numbers go back to besides the answers: words, grading, data, code, libraries, servers.

    `facts` are what the answers depend on.
    """
    evaluate = config.evaluate
    paths = grader_paths(evaluate.original) if evaluate.original is not None else None
    whose = {
        "prompt_source": prompt_sources(facts["tasks"], evaluate),
        "second_grader": paths and {"program": SKYTHOUGHT, "libraries": grader_versions(paths)},
    }
    grading = {name: getattr(evaluate, name) for name in ("unfinished", "extraction", "grading_seconds")}
    return {
        "protocol": protocol({**facts, **whose, "grading": grading}),
        **whose,
        "grading": grading,
        "data": {task: describe_input(source) for task, source in sources.items() if source},
        "code": code_version(),
        "libraries": library_versions(),
        "vllm_servers": pool.versions() if pool else None,
    }


def task_input(config: Config, task: str) -> Source:
    """Return where a task is read from, with the revision of what comes from the Hub."""
    is_ours = task == LOCAL_TASK
    revision = config.data.revision if is_ours else task_revision(task, config.evaluate)
    return task_source(task, config.evaluate, config.dataset_id_or_path), revision


def read_layout(config: Config) -> tuple[StudentLayout, int | None]:
    """Return the student's layout, with its own system prompt, and its context in tokens."""
    assert config.model_name_or_path is not None
    trust, revision = config.model.trust_remote_code, config.model.revision
    tokenizer = load_tokenizer(config.model_name_or_path, revision=revision, trust=trust)
    context = load_context(config.model_name_or_path, revision=revision, trust=trust)
    check_lengths(config, context, {})
    layout = student_layout(config, tokenizer, config.model_name_or_path, revision=revision, asks_only=True)
    return layout, context


def ask(config: Config, task: str, layout: StudentLayout, at_most: int | None = None) -> KeptRows[Asked]:
    """Return the questions of a task with their prompts; logs how long these are.

    Of more than `at_most` the run's seed chooses as many.
    """
    evaluate, source = config.evaluate, config.dataset_id_or_path
    items = load_items(task, evaluate, config.data, source, layout.tags, config.seed)
    if at_most is not None:
        items = take_subset(items, SubsetSettings(min(at_most, len(items.items)), config.seed))

    def lay_out(item: Item) -> Asked:
        ids = layout.prompt_ids(item.problem)
        text = str(layout.tokenizer.decode(ids))
        return Asked(item, ids, hashlib.sha256(text.encode()).hexdigest())

    asked = items.lay_out(lay_out, config.data, partial(progress, what=f"tokenising {task}"))
    rule = LengthRule[Asked](
        f"prompt tokens of {task}", lambda a: len(a.prompt_ids), config.max_prompt_length, "max_prompt_length"
    )
    return keep_shortest(fit_lengths(asked, [rule], config.data), rule.measure, config.data)


def manifest(
    config: Config,
    model: Input | Mapping[str, Any],
    layout: StudentLayout,
    sampling: Sampling,
    tables: Tables,
    times: Mapping[str, int],
) -> dict[str, Any]:
    """Return everything that an answer depends on, the likeliest to change first."""
    shaped = asdict(sampling)
    prompt = layout.system_prompt
    return {
        "model": model.get("sha256") or model,
        "seed": config.seed,
        "max_completion_length": shaped.pop("max_tokens"),
        **shaped,
        "tasks": {
            task: {
                "num_problems": len(table.items),
                "num_samples": times[task],
                "prompts_sha256": prompts_digest(table.values),
            }
            for task, table in tables.items()
        },
        "evaluate.option_order": config.evaluate.option_order,
        "layout.tags": layout.tags.name,
        "student_prompt_sha256": None if prompt is None else hashlib.sha256(prompt.encode()).hexdigest(),
        **template_facts(layout.chat),
        **engine_facts(config, "evaluate"),
    }
