"""Collect the explanations that a trained teacher writes for a dataset; nothing is trained.

Every sample is on disk as soon as it is finished, so a kill costs what was in flight. The run's seed, a
problem and a number decide a sample: behind servers nothing else does; in this process its neighbours in a
fixed chunk move it by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths, keep_shortest
from rlt.data.load import load_problems
from rlt.data.prompts import student_prompt
from rlt.data.requested import read_requested, take_requested
from rlt.formats.layout import StudentMessages, TeacherLayout
from rlt.formats.tags import tag_style
from rlt.generation.types import Sampling
from rlt.io import describe_input, input_label, write_jsonl
from rlt.models.frozen import scoring_accelerator
from rlt.models.load import load_context, load_eos_ids, load_tokenizer
from rlt.records import Problem
from rlt.reporting.dataset_card import write_traces_card
from rlt.reporting.hub import upload_dataset
from rlt.reporting.progress import SampleProgress
from rlt.rundir.run_record import Source
from rlt.rundir.samples import write_samples
from rlt.stages.clean import clean_problems
from rlt.stages.common import is_main_process, progress, run_directory, write_skipped
from rlt.stages.engine import check_servers, make_sampling, server_pool
from rlt.stages.layouts import teacher_layout, template_facts
from rlt.stages.sampling import (
    engine_facts,
    from_servers,
    in_process,
    keys_of,
    local_generator,
    save,
    still_to_draw,
    units_of,
)
from rlt.traces.collect import (
    Prompted,
    Requested,
    Sample,
    plan_samples,
    read_sample,
    samples_digest,
    summarize,
)
from rlt.traces.journal import Journal
from rlt.traces.table import as_columns, collected_row

PUBLISHED = ("README.md", "traces.parquet")


def run(config: Config) -> None:
    """Write traces.jsonl and traces.parquet to the run directory, and upload them where that is asked for."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    teacher = (config.model_name_or_path, config.model.revision)
    inputs: dict[str, Source | None] = {
        "teacher": teacher,
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "only": config.collect.only,
    }
    output = Path(config.output_dir)
    with run_directory(config, inputs, card=write_traces_card) as record:
        accelerator = scoring_accelerator()
        pool = None
        if config.generation.backend == "vllm":
            pool = server_pool(config, config.collect.requests_per_server)
            check_servers(pool, config, logprobs=False)

        # 1. Text: the teacher's prompts, and the messages that students are trained on.
        layout, messages = read_layouts(config)
        name, revision = teacher
        own_stops = load_eos_ids(name, revision=revision, trust=config.model.trust_remote_code)
        stop_ids = {*layout.stop_token_ids, *own_stops}
        sampling = make_sampling(config, sorted(stop_ids))

        # 2. Samples: so many of each row that fits.
        requested = read_requested(config.collect.only) if config.collect.only else None
        rows = prompted_rows(config, layout, messages, requested)
        num_skipped = write_skipped(config, rows)
        collect = config.collect
        samples = plan_samples(rows.values, collect.num_samples, collect.first_sample_index, requested)

        # 3. What an earlier run has left to draw.
        size = 1 if pool else collect.samples_per_chunk
        units = units_of(samples, size)
        journal = Journal(output / "samples", keys_of(units))
        described = describe_input(teacher)
        todo = still_to_draw(journal, units, lambda: manifest(config, described, layout, sampling, samples))

        # 4. Draw.
        if todo:
            if pool:
                drawn, at_once = from_servers(pool, sampling, config.seed, todo), pool.max_requests
            else:
                generator = local_generator(config, layout.tokenizer, size, accelerator)
                drawn, at_once = in_process(generator, accelerator, sampling, config.seed, todo), size
            clock = SampleProgress(journal.rows.values(), len(samples), at_once)
            save(drawn, todo, journal, partial(read_sample, layout=layout), clock)

        # 5. Write.
        if is_main_process():
            origin = {
                "teacher": input_label(described),
                "sampling": {**asdict(sampling), "seed": config.seed},
            }
            table = [collected_row(s.row.problem, journal.rows[s.key], origin, messages) for s in samples]
            write_jsonl(output / "traces.jsonl", table)
            write_samples(output, "traces", as_columns(table))
            record.update(results=summarize(journal.rows.values()), skipped=num_skipped)
    if collect.push_to_hub and is_main_process():
        upload_dataset(output, collect.push_to_hub, PUBLISHED)


def read_layouts(config: Config) -> tuple[TeacherLayout, StudentMessages]:
    """Return the teacher's layout, and one for the messages of students, whichever their tokenizer."""
    assert config.model_name_or_path is not None
    trust, revision = config.model.trust_remote_code, config.model.revision
    tokenizer = load_tokenizer(config.model_name_or_path, revision=revision, trust=trust)
    check_lengths(config, load_context(config.model_name_or_path, revision=revision, trust=trust), {})
    tags = tag_style(config.layout.tags)
    messages = StudentMessages(tags, student_prompt(config.layout.student_prompt, tags))
    return teacher_layout(config, tokenizer), messages


def prompted_rows(
    config: Config, layout: TeacherLayout, messages: StudentMessages, requested: Requested | None
) -> KeptRows[Prompted]:
    """Return the rows whose prompts fit; logs how long they are."""
    problems = load_problems(config.data, config.dataset_id_or_path, layout.tags, need_trace=False)
    if requested is not None:
        problems = take_requested(problems, list(requested), str(config.collect.only))
    problems = clean_problems(problems, config)

    def lay_out(problem: Problem) -> Prompted:
        messages.messages(problem, "")  # a row that lacks the student's system prompt is a bad one
        return Prompted(problem, layout.prompt_ids(problem))

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rule = LengthRule[Prompted](
        "prompt tokens", lambda row: len(row.prompt_ids), config.max_prompt_length, "max_prompt_length"
    )
    return keep_shortest(fit_lengths(laid_out, [rule], config.data), rule.measure, config.data)


def manifest(
    config: Config,
    teacher: Mapping[str, Any],
    layout: TeacherLayout,
    sampling: Sampling,
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Return everything that a sample depends on, the likeliest to change first."""
    shaped = asdict(sampling)
    return {
        "teacher": teacher.get("sha256") or teacher,
        "seed": config.seed,
        "max_completion_length": shaped.pop("max_tokens"),
        **shaped,
        "collect.num_samples": config.collect.num_samples,
        "collect.first_sample_index": config.collect.first_sample_index,
        "collect.only": config.collect.only and describe_input(config.collect.only)["sha256"],
        "layout.tags": layout.tags.name,
        "teacher_prompt": layout.system_prompt,
        **({} if layout.show_solution else {"show_solution": False}),
        **template_facts(layout.chat),
        **engine_facts(config, "collect"),
        "samples": samples_digest(samples),
    }
