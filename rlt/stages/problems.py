"""The problems of a training, read as its configuration says; raises for rows that it could not use."""

from __future__ import annotations

from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.load import load_eval_problems, load_problems
from rlt.formats.tags import tag_style
from rlt.records import Problem
from rlt.stages.clean import clean_explained, clean_problems


def read_problems(config: Config, *, need_trace: bool = False) -> KeptRows[Problem]:
    """Return the problems to train on; with `need_trace` each has one."""
    tags = tag_style(config.layout.tags)
    loaded = load_problems(config.data, config.dataset_id_or_path, tags, need_trace=need_trace)
    return (clean_explained if need_trace else clean_problems)(loaded, config)


def read_held_out(config: Config, *, need_trace: bool = False) -> KeptRows[Problem] | None:
    """Return the held-out problems, None without any."""
    tags = tag_style(config.layout.tags)
    return load_eval_problems(config, tags, need_trace=need_trace)
