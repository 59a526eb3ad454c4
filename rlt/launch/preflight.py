"""Checks that take seconds and that the training would otherwise fail on, minutes after servers started."""

from __future__ import annotations

from pathlib import Path

from rlt.config.schema import Config, stage_of
from rlt.data.load import load_eval_problems, load_problems
from rlt.data.systems import require_systems
from rlt.data.traces import load_traces
from rlt.formats.tags import tag_style
from rlt.rundir.run_record import cannot_write, finish_abandoned, only_run_in
from rlt.traces.training import load_eval_traces, load_training_traces


def check_local_data(config: Config) -> int | None:
    """Return the rows to train on, None where they are not on this machine.

    Raises DataError for local problems that the stage would refuse, also for want of a system prompt, since
    no model is needed to see that. What is on the Hub stays there.
    """
    stage = stage_of(config)
    if not stage.reads("dataset_id_or_path"):
        return None
    if stage.reads_traces and stage.trains:
        return _check_training_traces(config)
    if stage.reads_traces:
        if Path(config.dataset_id_or_path).exists():
            traces = load_traces(config.data, config.dataset_id_or_path, tag_style(config.layout.tags))
            if stage.scores:  # else rows may bring whole chats
                require_systems(traces.map(lambda row: row.problem), config)
        return None
    tags, need_trace = tag_style(config.layout.tags), stage.reads("data.missing_trace")
    rows = None
    if Path(config.dataset_id_or_path).exists():
        rows = load_problems(config.data, config.dataset_id_or_path, tags, need_trace=need_trace)
        rows = require_systems(rows, config)
    held_out = config.evaluation.path if stage.reads("evaluation.path") else None
    if held_out and Path(held_out).exists():
        problems = load_eval_problems(config, tags, need_trace=need_trace)
        assert problems is not None, "evaluation.path is given"
        require_systems(problems, config)
    return len(rows.values) if rows else None


def _check_training_traces(config: Config) -> int | None:
    tags, malformed = tag_style(config.layout.tags), config.distill.malformed
    found = None
    if Path(config.dataset_id_or_path).exists():
        traces = load_training_traces(config.data, config.dataset_id_or_path, tags, malformed)
        found = require_systems(traces.rows.map(lambda trace: trace.problem), config)
    if config.evaluation.path and Path(config.evaluation.path).exists():
        held_out = load_eval_traces(config, tags)
        assert held_out is not None, "evaluation.path is given"
        require_systems(held_out.rows.map(lambda trace: trace.problem), config)
    return len(found.values) if found else None


def prepare_directory(output_dir: str, log_path: Path) -> None:
    """Make the run directory; raises ConfigError if it cannot be written or another run holds it."""
    with only_run_in(output_dir):  # the training will hold it
        finish_abandoned(output_dir)  # an earlier run, whose end is not ours to explain
    prepare_log(output_dir, log_path)


def prepare_log(output_dir: str, log_path: Path) -> None:
    """Make a log file of a run; raises ConfigError if it cannot be written."""
    try:
        log_path.parent.mkdir(exist_ok=True)
        log_path.open("ab").close()
    except OSError as error:
        raise cannot_write(output_dir, error) from error
