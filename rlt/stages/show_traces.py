"""Show what each token of some traces earned, as traces.html and in the terminal; nothing is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from rlt.config.schema import Config, ShowSettings
from rlt.data.traces import load_traces, number_traces
from rlt.errors import DataError
from rlt.models.frozen import scoring_accelerator
from rlt.records import Trace
from rlt.reporting.token_view import Shown, print_token_view, write_token_page
from rlt.rewards.look import look
from rlt.rundir.run_record import Source
from rlt.stages.common import is_main_process, run_directory, write_skipped
from rlt.stages.score_traces import checked, make_scorer, reasons, student_check, trace_reader
from rlt.stages.student import student_inputs
from rlt.traces.columns import score_of

logger = logging.getLogger(__name__)
NAME = "traces.html"


@dataclass(frozen=True)
class Chosen:
    """A trace with the words that say why it is shown."""

    title: str
    trace: Trace


def run(config: Config) -> None:
    """Write traces.html to the run directory and print the same."""
    assert config.student_model is not None, "validate() has asked for a student"
    inputs: dict[str, Source | None] = {
        "teacher": config.model_name_or_path and (config.model_name_or_path, config.model.revision),
        **student_inputs(config),
        "dataset": (config.dataset_id_or_path, config.data.revision),
    }
    output = Path(config.output_dir)
    with run_directory(config, inputs, card=None) as record:
        # 1. The traces that are asked for, as far as they can be scored.
        reader = trace_reader(config)
        loaded = load_traces(config.data, config.dataset_id_or_path, reader.tags)
        rows = loaded.lay_out(partial(checked, reader=reader), config.data)
        write_skipped(config, rows)
        numbers = [number for number, row in rows.items.items() for _ in row.texts]
        chosen = choose(number_traces(rows.values), numbers, config.show, loaded.source)
        traces = [item.trace for item in chosen]
        sizes = [reader.size(trace) for trace in traces]
        why = reasons(traces, sizes, reader, config)
        chosen = [item for item, reason in zip(chosen, why, strict=True) if reason is None]
        if not chosen:
            raise DataError(f"none of the chosen traces can be scored: {why[0]}; choose others")

        # 2. Their tokens. Every process scores all of them: a sharded model needs each in every pass.
        fitting = [size for size, reason in zip(sizes, why, strict=True) if reason is None]
        check = student_check([row.problem for row in rows.values], fitting, record)
        scorer = make_scorer(config, reader, check, scoring_accelerator())
        views = look(scorer.reward, *scorer.read([item.trace for item in chosen]))
        per_trace = len(scorer.reward.students)
        shown = [Shown(chosen[i // per_trace].title, view) for i, view in enumerate(views)]

        # 3. Page and terminal.
        if is_main_process():
            page = write_token_page(output / NAME, "What each token earned", shown)
            console = Console()
            for item in shown:
                print_token_view(item, console)
            logger.info("page: %s", page)
            record.update(shown=len(shown))


def choose(traces: Sequence[Trace], numbers: Sequence[int], show: ShowSettings, source: str) -> list[Chosen]:
    """Return the traces to show: rows that are named, else the best and the worst by their score.

    `numbers[i]` is the row of trace i in the source.
    """
    if show.rows:
        if missing := sorted(set(show.rows) - set(numbers)):
            raise DataError(
                f"{source} has no usable row {missing[0]}, which show.rows asks for: rows are counted from 1"
            )
        return [
            Chosen(f"row {number}, explanation {trace.sample_index}", trace)
            for trace, number in zip(traces, numbers, strict=True)
            if number in show.rows
        ]
    scored = [(score, i) for i, trace in enumerate(traces) if (score := score_of(trace)) is not None]
    if not scored:
        raise DataError(
            f"{source} has no column `score` with a number in it, which best and worst go by: score it first "
            "(run_cfg=score_traces), or name rows with show.rows=[1]"
        )
    scored.sort(key=lambda item: (-item[0], item[1]))
    num_best = min(show.best, len(scored))
    num_worst = min(show.worst, len(scored) - num_best)
    ranks = [*range(num_best), *range(len(scored) - num_worst, len(scored))]
    return [
        Chosen(f"{rank + 1} of {len(scored)} · row {numbers[i]}", traces[i])
        for rank in ranks
        for _, i in [scored[rank]]
    ]
