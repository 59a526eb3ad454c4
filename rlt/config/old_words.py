"""Words of earlier versions of this project: understood wherever settings are named, with a sentence.

They become today's before anything else reads them: those of a command line in overrides.py, of configuration
files in yaml_files.py and settings_source.py, of saved configurations in save.py, of pipeline steps in
rlt/pipeline/steps.py. `python -m rlt.migrate` writes a file in today's words.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rlt.config.renames import MOVED, MOVED_IN_STAGES, OLD_PRESETS
from rlt.config.stage import Stage
from rlt.io import leaves

logger = logging.getLogger(__name__)

_REFERENCE = re.compile(r"(?<!\\)((?:\\\\)*)\$\{(" + "|".join(map(re.escape, MOVED)) + r")(?=[.}])")
"""`${NAME}`, unless a backslash says that the text itself is meant."""


def new_name(name: str) -> str:
    """Return the dotted name of a setting or section as it is today."""
    for old, new in MOVED.items():
        if f"{name}.".startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name


def new_references(text: str) -> str:
    """Return a text in which `${NAME}` has today's name."""
    return _REFERENCE.sub(lambda match: match[1] + "${" + MOVED[match[2]], text)


def old_names(content: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of nested settings that have another name today."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from old_names(value, f"{name}.")
        elif new_name(name) != name:
            yield name


def moved_in(stage: Stage | None) -> dict[str, str]:
    """Return the settings of which a stage reads another one now, by the old name."""
    if stage is None:
        return {}
    return {o: n for o, n in MOVED_IN_STAGES.items() if stage.reads(n) and not stage.reads(o)}


def with_new_names(content: Mapping[Any, Any], stage: Stage | None = None) -> dict[Any, Any]:
    """Return nested settings (of `stage`, where it is known) under today's names, which win over old ones."""
    tree = _with_new_references(content)
    for old, new in (MOVED | moved_in(stage)).items():
        value = _taken(tree, old.split("."))
        if value is not None:
            _put(tree, new.split("."), value[0])
    return tree


@cache
def tell(old: str, where: str, new: str | None = None) -> None:
    """Say once in a process that a word has another name today."""
    logger.warning("`%s` %s is `%s` now; the old name still works.", old, where, new or new_name(old))


def preset_words(group: str, name: str) -> str | None:
    """Return what to type for a group file that earlier versions had; None if they had none of that name."""
    settings = OLD_PRESETS.get(group, {}).get(name)
    return None if settings is None else " ".join(f"{key}={value}" for key, value in leaves(settings))


def _with_new_references(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_new_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_new_references(item) for item in value]
    return new_references(value) if isinstance(value, str) else value


def _taken(tree: Any, path: list[str]) -> tuple[Any] | None:
    """Take a value out of nested settings, with sections that are empty then; None where it is not there."""
    if not isinstance(tree, dict) or path[0] not in tree:
        return None
    if len(path) == 1:
        return (tree.pop(path[0]),)
    found = _taken(tree[path[0]], path[1:])
    if found is not None and not tree[path[0]]:
        del tree[path[0]]
    return found


def _put(tree: dict[Any, Any], path: list[str], value: Any) -> None:
    """Add a value to nested settings, below what is there."""
    for part in reversed(path):
        value = {part: value}
    below(tree, value)


def below(tree: dict[Any, Any], others: Mapping[Any, Any]) -> None:
    """Add nested settings to others, which win."""
    for key, value in others.items():
        if isinstance(value, Mapping) and isinstance(there := tree.setdefault(key, {}), dict):
            below(there, value)
        else:
            tree.setdefault(key, value)
