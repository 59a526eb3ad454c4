"""A run file of this project, written for an earlier version, in the names of today."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from rlt.config.old_words import below, moved_in, new_name, old_names, preset_words, with_new_names
from rlt.config.overrides import CONFIG_DIR
from rlt.config.renames import OLD_PRESETS
from rlt.config.stages import STAGES
from rlt.config.typed import flat
from rlt.config.yaml_files import included_files, raw_settings, stage_of_run_file
from rlt.errors import ConfigError


@dataclass(frozen=True)
class Renewed:
    """A run file in today's names."""

    text: str
    names: dict[str, str]
    """What it names that has another name now -> that name."""


def renew(path: Path) -> Renewed | None:
    """Return our own run file in today's names; None where it uses none of an earlier version.

    Comments are kept where they come before the first setting.
    """
    try:
        content = raw_settings(path)
    except (OSError, ConfigError):
        return None  # read_run_file says what is wrong
    stage = STAGES.get(stage_of_run_file(str(path), [CONFIG_DIR]) or "")
    names = {old: new_name(old) for old in old_names(content)}
    names |= {old: new for old, new in moved_in(stage).items() if old in flat(content)}
    content = with_new_names(content, stage)
    if presets := _take_presets(content, path):
        names |= presets
    if not names:
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [*takewhile(lambda line: line.startswith("#") or not line.strip(), lines)]
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return Renewed("\n".join([*head, body]), names)


def _take_presets(content: dict[Any, Any], path: Path) -> dict[str, str]:
    """Put the settings of group files that are no more in their place, below those of the file itself."""
    found: dict[str, str] = {}
    for entry in content.get("defaults", []):
        for group, name in included_files([entry], "run_cfg", path):
            if words := preset_words(group, name):
                found[f"{group}: {name}"] = words
                content["defaults"] = [other for other in content["defaults"] if other != entry]
                below(content, OLD_PRESETS[group][name])
    return found
