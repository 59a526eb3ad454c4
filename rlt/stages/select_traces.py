"""Choose the explanations that students are trained on, and report what was skipped and why: no models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlt.config.schema import Config
from rlt.data.kept import REPEATED, Overlap
from rlt.data.prompts import student_prompt
from rlt.errors import DataError
from rlt.formats.layout import student_messages
from rlt.formats.tags import tag_style
from rlt.io import write_jsonl, write_text
from rlt.records import Problem, Trace
from rlt.reporting.dataset_card import overlap_text, write_selection_card
from rlt.rundir.samples import write_samples
from rlt.stages.clean import Found, find_overlaps, trace_text
from rlt.stages.common import is_main_process, run_directory, write_overlaps
from rlt.stages.trace_sources import count_tokens, read_traces, source_inputs, student_lengths
from rlt.text import markdown
from rlt.traces.columns import score_of
from rlt.traces.distance import MEASURES, measure_of
from rlt.traces.select import (
    DISTANCE_RULES,
    IN_BENCHMARK,
    REPEATS,
    SCORE_RULES,
    Decision,
    dropped_rows,
    select,
    summarize_selection,
)
from rlt.traces.table import as_columns, chosen_row

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write traces.jsonl, traces.parquet, dropped.jsonl, selection.md and a card to the run directory."""
    inputs = source_inputs(config)
    if config.select.max_length is not None:
        inputs["student"] = config.student_model
    with run_directory(config, inputs, card=write_selection_card) as record:
        if not is_main_process():
            return
        # 1. Traces, and their lengths where these decide.
        tags = tag_style(config.layout.tags)
        prompt = student_prompt(config.layout.student_prompt, tags)
        lengths = student_lengths(config) if config.select.max_length is not None else None

        def check(problem: Problem) -> None:
            if lengths:
                lengths.around(problem)
            if problem.extra.get("messages") is None:
                student_messages(problem, "", tags, prompt)  # refuses a row without its system prompt

        traces, num_skipped = read_traces(config, check)
        if config.select.rule in SCORE_RULES:
            require_scores(traces, config)
        if config.select.rule in DISTANCE_RULES:
            require_distances(traces, config)
        tokens = (
            [length.total for length in count_tokens(lengths, traces)] if lengths else [None] * len(traces)
        )

        # 2. Choose.
        overlaps = find_overlaps([t.problem for t in traces], [trace_text(t) for t in traces], config)
        refused = refusals(traces, overlaps, config)
        decisions = select(traces, tokens, config.select, config.seed, refused)

        # 3. Write.
        output = Path(config.output_dir)
        rows = [
            chosen_row(trace, decision.selected, tags, prompt)
            for trace, decision in zip(traces, decisions, strict=True)
        ]
        write_jsonl(output / "traces.jsonl", rows)
        write_samples(output, "traces", as_columns(rows))
        write_jsonl(output / "dropped.jsonl", dropped_rows(traces, decisions))
        summary = summarize_selection(traces, decisions)
        listed = list_overlaps(traces, overlaps, config)
        write_overlaps(output, listed)
        report = selection_report(summary, config)
        if section := overlap_text([one.set for one in listed], asdict(config.data)):
            report += f"\n{section}\n"
        write_text(output / "selection.md", report)
        logger.info("%s", report.rstrip())
        if not summary["selected"]:
            logger.warning("nothing is selected: no student can be trained on %s", output / "traces.jsonl")
        record.update(results=summary, skipped=num_skipped)


def refusals(traces: Sequence[Trace], overlaps: Found, config: Config) -> dict[int, Decision]:
    """Return the decision about each trace that is skipped for the text that it shares, by its place."""
    refused = {}
    if config.data.deduplicate == "drop":
        for place, first in overlaps.repeats.items():
            refused[place] = Decision(REPEATS, f"sample_index {traces[first].sample_index}")
    if config.data.on_contaminated == "drop":
        refused |= {place: Decision(IN_BENCHMARK, str(hits[0])) for place, hits in overlaps.hits.items()}
    return refused


def list_overlaps(traces: Sequence[Trace], overlaps: Found, config: Config) -> list[Overlap]:
    """Return what the traces share with benchmarks and with each other, for overlap.jsonl."""
    data, listed = config.data, []
    for place, trace in enumerate(traces):
        name = f"{trace.problem.id}, sample_index {trace.sample_index}"
        for hit in overlaps.hits.get(place, ()):
            listed.append(Overlap(name, place + 1, hit.benchmark, str(hit), data.on_contaminated == "drop"))
        if place in overlaps.repeats:
            first = f"explanation {overlaps.repeats[place] + 1}"
            listed.append(Overlap(name, place + 1, REPEATED, first, data.deduplicate == "drop"))
    return listed


def require_scores(traces: Sequence[Trace], config: Config) -> None:
    """Raise DataError where a rule that reads scores finds none."""
    if all(score_of(trace) is None for trace in traces):
        raise DataError(
            f"{config.dataset_id_or_path} has no column `score` with a number in it, which "
            f"select.rule={config.select.rule} goes by: score it first (run_cfg=score_traces), then select "
            "from scores.jsonl"
        )


def require_distances(traces: Sequence[Trace], config: Config) -> None:
    """Raise DataError where a rule that reads how far the student is from a trace finds nothing of it."""
    if measure_of(traces) is None:
        raise DataError(
            f"{config.dataset_id_or_path} holds no measure for all traces of how far the student is from "
            f"them ({' or '.join(MEASURES)} in `breakdown`), which select.rule={config.select.rule} goes by: "
            "score all of them again, in one way (run_cfg=score_traces), then select from scores.jsonl"
        )


def selection_report(summary: Mapping[str, Any], config: Config) -> str:
    """Return what was chosen and what was skipped, as Markdown."""
    without = summary["problems_without_selection"]
    served = summary["problems"] - without
    counts = [
        ["", "explanations", "problems"],
        ["read", f"{summary['traces']}", f"{summary['problems']}"],
        ["selected", f"{summary['selected']}", f"{served}"],
        ["skipped", f"{summary['traces'] - summary['selected']}", f"{without}"],
    ]
    text = f"# Selection: {config.select.rule}\n\n{markdown(counts)}"
    if summary["selected_not_well_formed"]:
        text += f"\n{summary['selected_not_well_formed']} of the selected are not well-formed.\n"
    if summary["dropped"]:
        why = [["skipped, because", "explanations", "of problems"]]
        why += [[reason, f"{n['traces']}", f"{n['problems']}"] for reason, n in summary["dropped"].items()]
        text += f"\n{markdown(why)}"
    if far := summary["distance"]:
        rows = [[f"{far['measure']}, nats a token", "explanations", "mean", "lowest", "highest"]]
        rows += [[name, *map(_number, far[name].values())] for name in ("read", "selected")]
        text += (
            f"\nDistance from the student: {MEASURES[far['measure']]}, mean of a trace.\n\n{markdown(rows)}"
        )
    return text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
