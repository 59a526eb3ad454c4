"""What is known in seconds, and would otherwise be told by the training, minutes after servers started."""

from __future__ import annotations

from pathlib import Path

from rlt.config.schema import TRACE_STAGES, Config
from rlt.data.load import load_eval_problems, load_problems
from rlt.data.traces import load_traces
from rlt.formats.tags import TAG_STYLES
from rlt.reporting.run_record import cannot_write, finish_abandoned, only_run_in
from rlt.traces.training import load_eval_traces, load_training_traces


def check_local_data(config: Config) -> None:
    """Raise DataError for local problems that the training would refuse. What is on the Hub stays there."""
    if config.stage == "make_countdown":
        return
    if config.stage == "student_sft":
        _check_training_traces(config)
        return
    if config.stage in TRACE_STAGES:
        if Path(config.dataset_id_or_path).exists():
            load_traces(config.data, config.dataset_id_or_path, TAG_STYLES[config.layout.tags])
        return
    for load, source in (
        (load_problems, config.dataset_id_or_path),
        (load_eval_problems, config.data.eval_path),
    ):
        if source and Path(source).exists():
            tags = TAG_STYLES[config.layout.tags]
            load(config.data, config.dataset_id_or_path, tags, need_trace=config.stage == "teacher_sft")


def _check_training_traces(config: Config) -> None:
    tags, malformed = TAG_STYLES[config.layout.tags], config.distill.malformed
    for load, source in (
        (load_training_traces, config.dataset_id_or_path),
        (load_eval_traces, config.data.eval_path),
    ):
        if source and Path(source).exists():
            load(config.data, config.dataset_id_or_path, tags, malformed)


def prepare_directory(output_dir: str, log_path: Path) -> None:
    """Make the run directory; raises ConfigError if it cannot be written or another run holds it."""
    with only_run_in(output_dir):  # the training will hold it
        finish_abandoned(output_dir)  # an earlier run, whose end is not ours to explain
    try:
        log_path.parent.mkdir(exist_ok=True)
        log_path.open("ab").close()
    except OSError as error:
        raise cannot_write(output_dir, error) from error
