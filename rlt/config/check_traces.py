"""The rules of stages that read traces without a model: `select` and `plan`."""

from __future__ import annotations

from pathlib import Path

from rlt.config.schema import Config
from rlt.errors import ConfigError

_BY_RANK = "rank"


def check_traces(config: Config) -> None:
    """Raise ConfigError for the first broken rule; no data is read."""
    stage = config.stage
    for setting, value in (
        ("model_name_or_path", config.model_name_or_path),
        ("resume_from", config.resume_from),
        ("trainer_args", config.trainer_args),
    ):
        if value:
            raise ConfigError(
                f"`{setting}` has no effect, because {stage} loads no model and trains nothing: leave it out."
            )
    _check_sources(config)
    if stage == "select_traces":
        _check_select(config)
    if stage == "plan_traces":
        _check_plan(config)


def _check_sources(config: Config) -> None:
    output = Path(config.output_dir).resolve()
    sources = [config.dataset_id_or_path, *config.traces.more]
    for source in sources:
        setting = "dataset_id_or_path" if source == config.dataset_id_or_path else "traces.more"
        if not source.strip():
            raise ConfigError(f"`{setting}` must name files, got {source!r}.")
        if sources.count(source) > 1:
            raise ConfigError(
                f"`traces.more` names {source} again, so each of its explanations would count twice: name it "
                "once."
            )
        if Path(source).exists() and output in (Path(source).resolve(), Path(source).resolve().parent):
            raise ConfigError(
                f"`output_dir={config.output_dir}` is the folder of {setting}={source}, where the run could "
                "write over what it reads: give a folder of its own."
            )


def _check_select(config: Config) -> None:
    select = config.select
    if select.rule == "shortest" and select.max_length is None:
        raise ConfigError(
            "`select.rule=shortest` chooses the shortest that fits: give select.max_length, in tokens of the "
            "student's whole sequence."
        )
    if select.max_length is not None and not config.student_model:
        raise ConfigError(
            f"`select.max_length={select.max_length}` counts the student's tokens: give student_model, a "
            "folder with its tokenizer or a Hub name."
        )
    bucket = select.rank_bucket
    if select.rule != _BY_RANK and bucket:
        raise ConfigError(
            f"`select.rank_bucket={bucket}` has no effect with select.rule={select.rule}: take "
            f"select.rule={_BY_RANK}, or leave it out."
        )
    if select.rule == _BY_RANK and not (len(bucket) == 2 and 1 <= bucket[0] <= bucket[1]):
        raise ConfigError(
            f"`select.rank_bucket` must be [first,last] for select.rule={_BY_RANK}, ranks counted from 1, "
            f"got {bucket}."
        )


def _check_plan(config: Config) -> None:
    if not config.student_model:
        raise ConfigError(
            "`student_model` is empty, but plan_traces counts its tokens: give a folder with its tokenizer, "
            "or a Hub name."
        )
    for cutoff in config.plan.cutoffs:
        if cutoff < 1:
            raise ConfigError(f"`plan.cutoffs` must hold numbers of tokens from 1 on, got {cutoff}.")
