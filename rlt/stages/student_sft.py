"""Distillation: a student is fine-tuned on a teacher's explanations as its own thoughts.

Each row is the student's prompt (system, question) and the whole assistant's turn: thought, solution, and the
token that ends the turn. The loss counts the turn and nothing else (method sections 2 and 4).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from rlt.config.files import is_here, prompt_is_here
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.load import count_overlap
from rlt.data.systems import require_systems
from rlt.formats.layout import StudentLayout
from rlt.formats.tags import tag_style
from rlt.formats.turn_end import turn_end_token
from rlt.models.load import load_context, load_tokenizer, set_eos
from rlt.records import Problem, Trace
from rlt.stages.benchmarks import benchmark_inputs, load_benchmarks
from rlt.stages.clean import clean_traces
from rlt.stages.common import is_main_process, resume_point, run_directory, write_skipped
from rlt.stages.layouts import student_layout, student_record
from rlt.stages.sft import Target, fine_tune, fit_rows, sft_data, show_targets, warn_of_short_steps
from rlt.stages.turn_ends import check_stop, count_ends
from rlt.traces.training import TrainingTraces, load_eval_traces, load_training_traces
from rlt.trainers.final_model import SavedWith, generation_config
from rlt.trainers.sft import IGNORED, Row

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Train a student on traces and write a model that stops by itself."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.evaluation.path,
        **benchmark_inputs(config),
    }
    with run_directory(config, inputs) as record:
        checkpoint = resume_point(config)

        # 1. Text: traces as ids and labels, within the length limit.
        text = read_text(config)
        layout, traces, rows, eval_rows = text.layout, text.traces, text.rows, text.eval_rows
        num_skipped = write_skipped(config, rows, eval_rows)
        show_targets(layout.tokenizer, rows.values[:5])
        record.update(
            rows=len(rows.items),
            skipped=num_skipped,
            trained_on={
                "traces": len(rows.items),
                "with_an_end": count_ends(rows.values, layout.turn_end_id, "student"),
                "not_selected": traces.num_unselected,
                "malformed": traces.num_malformed,
                "tokens": sum(len(row["input_ids"]) for row in rows.values),
                "tokens_in_the_loss": sum(label != IGNORED for row in rows.values for label in row["labels"]),
                "teachers": traces.teachers,
                "turn_end": layout.turn_end,
            },
        )

        # 2. Benchmarks to answer while training, if asked for.
        stop_ids = [layout.turn_end_id, *(i for i in layout.stop_token_ids if i != layout.turn_end_id)]
        trained_on = (trace.problem for trace in traces.rows.values)
        benchmarks = load_benchmarks(config, layout, trained_on, stop_ids=stop_ids, context=text.context)

        # 3. Train, and write the model.
        generation = generation_config(layout.tokenizer, stop_ids, config.temperature)
        stored = student_record(config, layout, (trace.problem for trace in traces.rows.values))
        fine_tune(
            config,
            sft_data(rows, eval_rows, checkpoint, record),
            tokenizer=layout.tokenizer,
            saved=SavedWith(generation, stored),
            checkpoint=checkpoint,
            benchmarks=benchmarks,
        )
        if is_main_process():
            logger.info("%s", check_stop(Path(config.output_dir), layout))


@dataclass(frozen=True)
class Text:
    """What is known before the model is loaded."""

    layout: StudentLayout
    context: int | None
    traces: TrainingTraces
    rows: KeptRows[Row]
    eval_rows: KeptRows[Row] | None


def read_text(config: Config) -> Text:
    """Return layout and rows, with the token that the student learns to stop with.

    Raises for a tokenizer, a template or rows that training could not use.
    """
    layout, context = read_layout(config)
    traces, held_out = read_traces(config), read_held_out(config)
    if held_out:
        count_overlap(problems_of(traces), problems_of(held_out))
    rows = sft_rows(traces.rows, layout, config)
    warn_of_short_steps(len(rows.items), config)
    return Text(layout, context, traces, rows, sft_rows(held_out.rows, layout, config) if held_out else None)


def read_layout(config: Config) -> tuple[StudentLayout, int | None]:
    """Return the student's layout and its context; raises where tokenizer, template or lengths do not fit."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    model, revision, trust = config.model_name_or_path, config.model.revision, config.model.trust_remote_code
    tokenizer = load_tokenizer(model, revision=revision, trust=trust)
    turn_end = turn_end_token(tokenizer, config.distill.turn_end)
    set_eos(tokenizer, turn_end)
    layout = student_layout(config, tokenizer, model, revision=revision, turn_end=turn_end)
    context = load_context(model, revision=revision, trust=trust)
    check_lengths(config, context, {})
    return layout, context


def read_traces(config: Config) -> TrainingTraces:
    """Return the traces to train on."""
    tags = tag_style(config.layout.tags)
    source, malformed = config.dataset_id_or_path, config.distill.malformed
    traces = load_training_traces(config.data, source, tags, malformed)
    return replace(traces, rows=clean_traces(traces.rows, config))


def read_held_out(config: Config) -> TrainingTraces | None:
    """Return the held-out traces, if any."""
    tags = tag_style(config.layout.tags)
    return load_eval_traces(config, tags)


def problems_of(traces: TrainingTraces) -> list[Problem]:
    """Return the problems that traces explain, each once."""
    return list({trace.problem.id: trace.problem for trace in traces.rows.values}.values())


def check(config: Config) -> None:
    """Raise what training would, before it loads the model, as far as model and data are on this machine."""
    readable = is_here(config.model_name_or_path) and prompt_is_here(config.layout.student_prompt)
    layout = read_layout(config)[0] if readable else None
    traces = read_traces(config) if is_here(config.dataset_id_or_path) else None
    held_out = read_held_out(config) if is_here(config.evaluation.path) else None
    for found in (traces, held_out):
        if found:
            require_systems(found.rows.map(lambda trace: trace.problem), config)
    if traces and held_out:
        count_overlap(problems_of(traces), problems_of(held_out))
    if layout and traces:
        rows = sft_rows(traces.rows, layout, config)
        warn_of_short_steps(len(rows.items), config)
        count_ends(rows.values, layout.turn_end_id, "student")
    if layout and held_out:
        sft_rows(held_out.rows, layout, config)


def sft_rows(traces: KeptRows[Trace], layout: StudentLayout, config: Config) -> KeptRows[Row]:
    """Return the training row of each trace that fits: the prompt, and the assistant's turn."""

    def lay_out(trace: Trace) -> Target:
        assert trace.explanation is not None, "load_training_traces leaves rows without one out"
        turn = layout.turn(trace.problem, trace.explanation)
        return Target(turn.prompt_ids, turn.completion_ids)

    return fit_rows(traces, lay_out, config)
