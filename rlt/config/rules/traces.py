"""The rules of stages that read traces: `select`, `plan`, `show`, scoring."""

from __future__ import annotations

from pathlib import Path

from rlt.config.schema import Config
from rlt.config.students import refuse_own_student
from rlt.errors import ConfigError

_BY_RANK = "rank"


def check_sources(config: Config) -> None:
    """Raise ConfigError for files that cannot be read together, or that the run would write over."""
    refuse_own_student(config)
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
                "overwrite what it reads: give another folder."
            )


def check_select(config: Config) -> None:
    """Raise ConfigError for the first broken rule of `select`; no data is read."""
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
    if select.rule == _BY_RANK and not (len(bucket) == 2 and 1 <= bucket[0] <= bucket[1]):
        raise ConfigError(
            f"`select.rank_bucket` must be [first,last] for select.rule={_BY_RANK}, ranks counted from 1, "
            f"got {bucket}."
        )


def check_plan(config: Config) -> None:
    """Raise ConfigError for the first broken rule of `plan`; no data is read."""
    for cutoff in config.plan.cutoffs:
        if cutoff < 1:
            raise ConfigError(f"`plan.cutoffs` must hold numbers of tokens from 1 on, got {cutoff}.")


def check_show(config: Config) -> None:
    show = config.show
    if not (show.rows or show.best or show.worst):
        raise ConfigError("`show` asks for nothing: give show.rows=[1], show.best=3 or show.worst=3.")


def refuse_greedy(config: Config) -> None:
    if config.temperature == 0:
        raise ConfigError(
            f"`temperature` must be greater than 0 in {config.stage}, got 0, since logits are divided by it."
        )
