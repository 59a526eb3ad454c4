"""The rules of `collect`: what is drawn, for which problems, and where it goes."""

from __future__ import annotations

import re
from pathlib import Path

from rlt.config.schema import Config
from rlt.errors import ConfigError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_collect(config: Config) -> None:
    """Raise ConfigError for the first broken rule."""
    collect = config.collect
    if config.temperature == 0 and collect.num_samples > 1:
        raise ConfigError(
            f"`collect.num_samples={collect.num_samples}` must be 1 with temperature=0, because greedy "
            "samples are all the same."
        )
    only = collect.only
    if only is not None and not (only.endswith(".jsonl") and Path(only).is_file()):
        raise ConfigError(f"`collect.only={only}` is no .jsonl file that exists: give another one, or null.")
    if collect.push_to_hub is not None and not _REPOSITORY.fullmatch(collect.push_to_hub):
        raise ConfigError(f"`collect.push_to_hub` must be like OWNER/NAME, got '{collect.push_to_hub}'.")
