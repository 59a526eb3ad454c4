"""What select_traces and plan_traces share: reading traces of several sources, and counting their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rlt.config.schema import Config, SubsetSettings
from rlt.data.traces import ExplainedRow, join_traces, load_traces, number_traces
from rlt.formats.tags import tag_style
from rlt.models.load import load_tokenizer
from rlt.records import Problem, Trace
from rlt.rundir.run_record import Source
from rlt.stages.common import progress, write_skipped
from rlt.stages.layouts import student_layout
from rlt.traces.columns import is_fallback
from rlt.traces.trace_lengths import Length, TraceLengths


def source_inputs(config: Config) -> dict[str, Source | None]:
    """Return what is read, for run.json."""
    more = {f"dataset {number}": path for number, path in enumerate(config.traces.more, start=2)}
    return {"dataset": (config.dataset_id_or_path, config.data.revision), **more}


def read_traces(config: Config, check: Callable[[Problem], object]) -> tuple[list[Trace], int]:
    """Return the traces of all sources, and how many rows were skipped; `check` refuses problems.

    Of the settings of `data`, those that name a version or a part of dataset_id_or_path hold for it alone.
    """
    tags = tag_style(config.layout.tags)
    further = replace(config.data, config_name=None, revision=None, subset=SubsetSettings())
    sources = [(config.dataset_id_or_path, config.data), *((path, further) for path in config.traces.more)]

    def checked(row: ExplainedRow) -> ExplainedRow:
        check(row.problem)
        return row

    tables = [load_traces(data, source, tags).lay_out(checked, config.data) for source, data in sources]
    num_skipped = write_skipped(config, *tables)
    numbered = [number_traces(table.values, config.score.fallback_index) for table in tables]
    traces = [replace(trace, is_fallback=is_fallback(trace)) for trace in join_traces(numbered)]
    return traces, num_skipped


def student_lengths(config: Config) -> TraceLengths:
    """Return the counter of the student's tokens; no weights are loaded."""
    assert config.student_model is not None, "validate() has asked for a student"
    tokenizer = load_tokenizer(config.student_model, trust=config.model.trust_remote_code)
    return TraceLengths(student_layout(config, tokenizer, config.student_model))


def count_tokens(lengths: TraceLengths, traces: Sequence[Trace]) -> list[Length]:
    """Return the length of each trace."""
    return [lengths(trace) for trace in progress(traces, "tokenising")]
