"""Collect the explanations that a trained teacher writes for a dataset; nothing is trained.

Every sample is on disk as soon as it is finished, so a kill costs what was in flight. The run's seed, a
problem and a number decide a sample: behind servers nothing else does; in this process its neighbours in a
fixed chunk move it by rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from rlt.config.schema import Config
from rlt.config.validate import check_lengths
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths
from rlt.data.load import load_problems
from rlt.data.prompts import student_prompt, teacher_prompt
from rlt.data.wanted import read_wanted, take_wanted
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.generation.collective import on_every_process
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Generator, Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.models.frozen import scoring_accelerator
from rlt.models.load import load_context, load_eos_ids, load_model, load_tokenizer
from rlt.records import Completion, Problem
from rlt.reporting.dataset_card import write_traces_card
from rlt.reporting.files import write_jsonl, write_text
from rlt.reporting.hub import upload_dataset
from rlt.reporting.inputs import describe_input, input_label
from rlt.reporting.progress import SampleProgress
from rlt.reporting.run_record import Source
from rlt.reporting.samples import write_samples
from rlt.stages.common import is_main_process, progress, run_directory, write_skipped
from rlt.stages.engine import check_servers, make_sampling, server_pool
from rlt.traces.collect import Prompted, Sample, Wanted, plan_samples, read_sample, samples_digest, summarize
from rlt.traces.journal import Journal
from rlt.traces.table import as_columns, collected_row

logger = logging.getLogger(__name__)
PUBLISHED = ("README.md", "traces.parquet")
Units = Mapping[int, Sequence[Sample]]
"""Samples that are saved together, by their number."""
Drawn = Iterator[tuple[int, list[Completion]]]
"""Units as they are finished: the number, and a completion for each of the samples."""


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
        wanted = read_wanted(config.collect.only) if config.collect.only else None
        rows = prompted_rows(config, layout, messages, wanted)
        num_skipped = write_skipped(config, rows)
        collect = config.collect
        samples = plan_samples(rows.values, collect.num_samples, collect.first_sample_index, wanted)

        # 3. What an earlier run has left to draw.
        size = 1 if pool else collect.samples_per_chunk
        units = {i: samples[start : start + size] for i, start in enumerate(range(0, len(samples), size))}
        keys = [[sample.key for sample in unit] for unit in units.values()]
        journal = Journal(output / "samples", keys, write_text)
        described = describe_input(teacher)
        pending: list[Any] = [None]
        if is_main_process():
            pending = [journal.open(manifest(config, described, layout, sampling, samples))]
            logger.info("%d of %d explanations are there already", len(journal.rows), len(samples))
        (pending,) = broadcast_object_list(pending)

        # 4. Draw.
        todo = {i: units[i] for i in pending}
        if todo:
            if pool:
                drawn, at_once = from_servers(pool, sampling, config.seed, todo), pool.max_requests
            else:
                generator = local_generator(config, layout, accelerator)
                drawn, at_once = in_process(generator, accelerator, sampling, config.seed, todo), size
            clock = SampleProgress(journal.rows.values(), len(samples), at_once)
            save(drawn, todo, journal, layout, clock)

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


def read_layouts(config: Config) -> tuple[TeacherLayout, StudentLayout]:
    """Return the teacher's layout, and one for the messages of students, whichever their tokenizer."""
    assert config.model_name_or_path is not None
    trust, revision = config.model.trust_remote_code, config.model.revision
    tokenizer = load_tokenizer(config.model_name_or_path, revision=revision, trust=trust)
    check_lengths(config, load_context(config.model_name_or_path, revision=revision, trust=trust), {})
    tags = TAG_STYLES[config.layout.tags]
    return (
        TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags)),
        StudentLayout(tokenizer, tags, student_prompt(config.layout.student_prompt, tags)),
    )


def prompted_rows(
    config: Config, layout: TeacherLayout, messages: StudentLayout, wanted: Wanted | None
) -> KeptRows[Prompted]:
    """Return the rows whose prompts fit; logs how long they are."""
    problems = load_problems(config.data, config.dataset_id_or_path, layout.tags, need_trace=False)
    if wanted is not None:
        problems = take_wanted(problems, list(wanted), str(config.collect.only))

    def lay_out(problem: Problem) -> Prompted:
        messages.messages(problem, "")  # a row that lacks the student's system prompt is a bad one
        return Prompted(problem, layout.prompt_ids(problem))

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rule = LengthRule[Prompted](
        "prompt tokens", lambda row: len(row.prompt_ids), config.max_prompt_length, "max_prompt_length"
    )
    return fit_lengths(laid_out, [rule], config.data)


def manifest(
    config: Config,
    teacher: Mapping[str, Any],
    layout: TeacherLayout,
    sampling: Sampling,
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Return everything that a sample depends on, the likeliest to change first."""
    shaped = asdict(sampling)
    if config.generation.backend == "vllm":
        engine: dict[str, Any] = {"generation.dtype": config.generation.dtype}
    else:
        engine = {
            "model.dtype": config.model.dtype,
            "model.attn_implementation": config.model.attn_implementation,
            "collect.samples_per_chunk": config.collect.samples_per_chunk,
        }
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
        "generation.backend": config.generation.backend,
        **engine,
        "samples": samples_digest(samples),
    }


def local_generator(config: Config, layout: TeacherLayout, accelerator: Accelerator) -> Generator:
    """Return the teacher in this process."""
    assert config.model_name_or_path is not None
    tokenizer = layout.tokenizer
    assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer has seen to a pad token"
    model: Any = load_model(
        config.model_name_or_path,
        dtype=config.model.dtype,
        attn_implementation=config.model.attn_implementation,
        revision=config.model.revision,
        trust=config.model.trust_remote_code,
    )
    model.to(accelerator.device)
    return TransformersGenerator(
        lambda: nullcontext(model),
        tokenizer.pad_token_id,
        config.collect.samples_per_chunk,
        decode=lambda ids: str(tokenizer.decode(ids)),
    )


def from_servers(pool: VLLMPool, sampling: Sampling, seed: int, todo: Units) -> Drawn:
    """Yield units of one sample each; many are in flight, so that no server waits for work."""
    numbers, samples = list(todo), [sample for (sample,) in todo.values()]
    prompts, seeds = [s.row.prompt_ids for s in samples], [s.seed(seed) for s in samples]
    for i, completion in pool.stream(prompts, sampling, seeds):
        yield numbers[i], [completion]


def in_process(
    generator: Generator, accelerator: Accelerator, sampling: Sampling, seed: int, todo: Units
) -> Drawn:
    """Yield every unit on every process; each of them draws one unit a round."""
    numbers = list(todo)
    for start in range(0, len(numbers), accelerator.num_processes):
        ours = numbers[start : start + accelerator.num_processes]
        mine = ours[accelerator.process_index] if accelerator.process_index < len(ours) else None
        samples = [] if mine is None else todo[mine]
        prompts, seeds = [s.row.prompt_ids for s in samples], [s.seed(seed) for s in samples]
        groups = on_every_process(accelerator, partial(generator.generate, prompts, 1, sampling, seeds))
        results: Any = gather_object([(mine, [completion for (completion,) in groups])])
        yield from (result for result in results if result[0] is not None)


def save(drawn: Drawn, todo: Units, journal: Journal, layout: TeacherLayout, clock: SampleProgress) -> None:
    """Write each unit to the journal as it is drawn; a process that does not write only takes part."""
    if not is_main_process():
        for _ in drawn:
            pass
        return
    try:
        with journal.appending() as append:
            for number, completions in drawn:
                pairs = zip(todo[number], completions, strict=True)
                rows = [read_sample(sample, completion, layout) for sample, completion in pairs]
                append(rows)
                clock.add(rows, sum(len(completion.token_ids) for completion in completions))
    finally:
        logger.info("%d explanations are in %s", len(journal.rows), journal.path)
