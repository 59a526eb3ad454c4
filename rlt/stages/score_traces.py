"""Score and rank explanations that exist already by the student-likelihood reward; nothing is trained.

Shards of a fixed range of traces are shared out over the processes and saved as they are done, so neither the
number of processes nor a kill on the way changes a score.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from rlt.config.schema import Config
from rlt.data.lengths import keep_shortest
from rlt.data.traces import ExplainedRow, load_traces, number_traces
from rlt.formats.layout import StudentLayout
from rlt.io import describe_input, write_json, write_jsonl, write_text
from rlt.models.frozen import load_frozen, scoring_accelerator
from rlt.models.gather import max_over_processes
from rlt.models.load import load_context, load_tokenizer
from rlt.records import Problem, Trace
from rlt.reporting.dataset_card import write_scores_card
from rlt.reporting.progress import TokenProgress
from rlt.rundir.run_record import RunRecord, Source
from rlt.rundir.samples import write_samples
from rlt.stages.common import is_main_process, progress, run_directory, write_skipped
from rlt.stages.layouts import teacher_layout
from rlt.stages.student import read_students, student_inputs, student_reward
from rlt.stages.student_check import (
    Processes,
    StudentCheck,
    verify_sharded_students,
    verify_sharded_teacher,
    verify_student_servers,
)
from rlt.text import markdown
from rlt.traces.rank import Bucket, bucket_rows, rank_traces, summarize
from rlt.traces.score import FrozenTeacher, Size, TraceReader, TraceScorer, why_not
from rlt.traces.shards import Shards, traces_digest
from rlt.traces.table import as_columns, trace_row

logger = logging.getLogger(__name__)

_SAME_NUMBERS = ("placement", "servers", "verify_server", "teacher_logprobs")
"""Settings of `reward` that do not change what a score is."""


def run(config: Config) -> None:
    """Write scores.jsonl, scores.parquet and the table by rank to the run directory."""
    assert config.student_model is not None, "validate() has asked for a student"
    inputs: dict[str, Source | None] = {
        "teacher": config.model_name_or_path and (config.model_name_or_path, config.model.revision),
        **student_inputs(config),
        "dataset": (config.dataset_id_or_path, config.data.revision),
    }
    with run_directory(config, inputs, card=write_scores_card) as record:
        accelerator = scoring_accelerator()

        # 1. Text: tokenizers and layouts.
        reader = trace_reader(config)

        # 2. Traces: rows that can be laid out, and how long each explanation makes them.
        loaded = load_traces(config.data, config.dataset_id_or_path, reader.tags)
        rows = loaded.lay_out(partial(checked, reader=reader), config.data)
        num_skipped = write_skipped(config, rows)
        rows = keep_shortest(rows, lambda row: sum(len(text or "") for text in row.texts), config.data)
        traces = number_traces(rows.values, config.score.fallback_index)
        sizes = [reader.size(trace) for trace in progress(traces, "tokenising")]
        why = reasons(traces, sizes, reader, config)

        # 3. What an earlier run has left to do.
        output = Path(config.output_dir)
        shards = Shards(output / "scores", traces, config.score.rows_per_shard)
        pending: list[Any] = [None]
        if is_main_process():
            pending = [shards.open(manifest(config, reader, traces, inputs))]
            logger.info("%d of %d shards are to be scored", len(pending[0]), len(shards.parts))
        (pending,) = broadcast_object_list(pending)

        # 4. Score.
        if pending:
            fitting = [s for s, reason in zip(sizes, why, strict=True) if not reason]
            check = student_check([row.problem for row in rows.values], fitting, record)
            scorer = make_scorer(config, reader, check, accelerator)
            clock = TokenProgress(sum(tokens_of(shards.parts[i], sizes, why) for i in pending), "scoring")
            for index, scored in score_shards(scorer, shards, pending, traces, why, accelerator):
                if is_main_process():
                    shards.write(index, scored)
                    clock.add(tokens_of(shards.parts[index], sizes, why))

        # 5. Rank, choose, and write.
        if is_main_process():
            summary = write_scores(output, shards, traces, sizes, config, reader.students[0].layout)
            record.update(results=summary, skipped=num_skipped)


def trace_reader(config: Config) -> TraceReader:
    """Return how students and teacher read traces."""
    teacher = None
    if config.model_name_or_path is not None:
        trust = config.model.trust_remote_code
        tokenizer = load_tokenizer(config.model_name_or_path, revision=config.model.revision, trust=trust)
        teacher = teacher_layout(config, tokenizer)
    return TraceReader(read_students(config, teacher and teacher.tokenizer), teacher)


def checked(row: ExplainedRow, *, reader: TraceReader) -> ExplainedRow:
    """Return a row whose problem can be laid out; DataError says why another one cannot."""
    reader.around(row.problem)
    return row


def reasons(
    traces: Sequence[Trace], sizes: Sequence[Size], reader: TraceReader, config: Config
) -> list[str | None]:
    """Return why each trace cannot be scored, or None; logs how many cannot."""
    contexts = [student.context for student in reader.students]
    teacher = None
    if config.model_name_or_path is not None:
        trust = config.model.trust_remote_code
        teacher = load_context(config.model_name_or_path, revision=config.model.revision, trust=trust)
    why = [why_not(trace, size, contexts, teacher) for trace, size in zip(traces, sizes, strict=True)]
    found = [reason for reason in why if reason]
    if found:
        logger.warning(
            "%d of %d traces cannot be scored and get no score (%s, for one)", len(found), len(why), found[0]
        )
    return why


def manifest(
    config: Config, reader: TraceReader, traces: Sequence[Trace], inputs: Mapping[str, Source | None]
) -> dict[str, Any]:
    """Return everything that a score depends on."""
    models = {role: describe_input(of) for role, of in inputs.items() if of and role != "dataset"}
    reward = {k: v for k, v in asdict(config.reward).items() if k not in _SAME_NUMBERS}
    if config.reward.solution_span == "content":  # folders older than the setting do not record it
        del reward["solution_span"]
    return {
        "traces": traces_digest(traces),
        "rows_per_shard": config.score.rows_per_shard,
        **{role: of.get("sha256") or of for role, of in models.items()},
        "tags": reader.tags.name,
        "student_prompts": [student.layout.system_prompt for student in reader.students],
        "teacher_prompt": reader.teacher and reader.teacher.system_prompt,
        **({"show_solution": False} if reader.teacher and not reader.teacher.show_solution else {}),
        "answer_log_prob_coeff": config.answer_log_prob_coeff,
        "kl_penalty_reward_coeff": config.kl_penalty_reward_coeff,
        "temperature": config.temperature if reader.teacher else None,
        "model.dtype": config.model.dtype if reader.teacher else None,
        "model.attn_implementation": config.model.attn_implementation,
        **{f"reward.{name}": value for name, value in reward.items()},
    }


def student_check(problems: Sequence[Problem], sizes: Sequence[Size], record: RunRecord) -> StudentCheck:
    """Return what a comparison with plain loads needs to know of the traces that are scored."""
    return StudentCheck(problems, max((size.explanation for size in sizes), default=0), record)


def make_scorer(
    config: Config, reader: TraceReader, check: StudentCheck, accelerator: Accelerator
) -> TraceScorer:
    """Return the scorer with its frozen models, placed as configured and compared with plain loads."""
    if config.reward.placement == "server" and config.reward.verify_server and is_main_process():
        verify_student_servers(config, reader.students[0], check)
    agree = partial(max_over_processes, accelerator)
    teacher = None
    if reader.teacher is not None:
        assert config.model_name_or_path is not None
        model = load_frozen(
            config.model_name_or_path,
            placement=config.reward.placement,
            dtype=config.model.dtype,
            attn_implementation=config.model.attn_implementation,
            accelerator=accelerator,
            revision=config.model.revision,
            trust=config.model.trust_remote_code,
        )
        teacher = FrozenTeacher(
            model, reader.teacher, config.temperature, config.reward.tokens_per_batch, agree
        )
        verify_sharded_teacher(config, model, reader.teacher, check, Processes(accelerator, agree))
    reward = student_reward(config, reader.students, accelerator=accelerator, agree=agree)
    if config.reward.verify_server:
        verify_sharded_students(config, reader.students, reward, check, Processes(accelerator, agree))
    return TraceScorer(reader, reward, teacher)


def tokens_of(part: range, sizes: Sequence[Size], why: Sequence[str | None]) -> int:
    """Return the tokens that scoring a shard takes."""
    return sum(sizes[i].total for i in part if why[i] is None)


def score_shards(
    scorer: TraceScorer,
    shards: Shards,
    pending: Sequence[int],
    traces: Sequence[Trace],
    why: Sequence[str | None],
    accelerator: Accelerator,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each pending shard with its rows, on every process; a process scores one shard a round."""
    for start in range(0, len(pending), accelerator.num_processes):
        ours = pending[start : start + accelerator.num_processes]
        mine = ours[accelerator.process_index] if accelerator.process_index < len(ours) else None
        part = range(0) if mine is None else shards.parts[mine]
        scored = scorer([traces[i] for i in part], [why[i] for i in part])
        results: Any = gather_object([(mine, scored)])
        yield from (result for result in results if result[0] is not None)


def write_scores(
    output: Path,
    shards: Shards,
    traces: Sequence[Trace],
    sizes: Sequence[Size],
    config: Config,
    layout: StudentLayout,
) -> dict[str, Any]:
    """Return the summary, after writing every row with its score, rank and place."""
    scored = shards.read_all()
    places = rank_traces(traces, [row["score"] for row in scored])
    rows = [
        trace_row(trace, size.explanation, score, place, layout)
        for trace, size, score, place in zip(traces, sizes, scored, places, strict=True)
    ]
    write_jsonl(output / "scores.jsonl", rows)
    write_samples(output, "scores", as_columns(rows))
    summary = summarize(traces, rows, config.score.rank_buckets)
    table = markdown(bucket_rows([Bucket(**bucket) for bucket in summary["buckets"]]))
    write_json(output / "ranks.json", summary)
    write_text(output / "ranks.md", table)
    logger.info("%d of %d traces have a score; by rank:\n%s", summary["scored"], summary["traces"], table)
    return summary
