"""The shape of the configuration files that a run file leads to, checked before Hydra merges them.

Hydra names no file, or fails with a traceback, where a file is not what it expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rlt.config.old_words import old_names, preset_words, tell, with_new_names
from rlt.config.tree import find, fits, record_of, type_words
from rlt.config.unknown import unknown_keys
from rlt.errors import ConfigError

_ENTRIES = "a list of names like teacher_rl, _self_ or `override /GROUP@_global_: NAME`"
_GROUP_SUFFIX = "@_global_"
RUN_FILES = "run_cfg"
"""The group of run files, which say what a user wants of one stage."""


def check_yaml(group: str, name: str, dirs: Sequence[Path], above: tuple[Path, ...] = ()) -> None:
    """Raise ConfigError for the first wrong shape in a file and in all that its defaults name."""
    path = next((p for folder in dirs if (p := folder / group / f"{name}.yaml").is_file()), None)
    if path is None:
        return  # Hydra says which names there are
    if path in above:
        circle = " -> ".join(str(p) for p in (*above[above.index(path) :], path))
        raise ConfigError(f"`defaults` go round in a circle: {circle}; leave one of them out.")
    for old in old_names(content := raw_settings(path)):
        tell(old, f"in {path}")
    content = with_new_names(content)
    for included_group, included in included_files(content.pop("defaults", []), group, path):
        if words := preset_words(included_group, included):
            tell(f"{included_group}: {included}", f"in {path}", words)
        check_yaml(included_group, included, dirs, (*above, path))
    if unknown := [*_unknown(content)]:
        raise unknown_keys(unknown, f"in {path}")
    _check_keys(content, "", path)


def _unknown(content: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of keys that are no settings; keys that are no text are left to _check_keys."""
    for key, value in content.items():
        row = find(f"{prefix}{key}")
        if isinstance(key, str) and row is None:
            yield f"{prefix}{key}"
        elif row is not None and row.section is not None and isinstance(value, dict):
            yield from _unknown(value, f"{prefix}{key}.")


def run_files(name: str | None, dirs: Sequence[Path]) -> Iterator[tuple[Path, dict[Any, Any]]]:
    """Yield a run file and those that it builds on, each before what it builds on, with their contents.

    `check_yaml` has looked at them before.
    """
    path = next((p for folder in dirs if (p := folder / RUN_FILES / f"{name}.yaml").is_file()), None)
    if path is None:
        return
    content = _read(path)
    yield path, content
    for group, included in reversed([*included_files(content.get("defaults", []), RUN_FILES, path)]):
        if group == RUN_FILES:
            yield from run_files(included, dirs)


def stage_of_run_file(value: str, dirs: Sequence[Path]) -> str | None:
    """Return the stage that a run file, given by name or path, is for; None where that is not to be seen."""
    path = Path(value)
    if path.parent.name == RUN_FILES and path.is_file():
        dirs = [path.parent.parent, *dirs]
    found = (content.get("stage") for _, content in run_files(path.stem, dirs))
    return next((stage for stage in found if isinstance(stage, str)), None)


def _read(path: Path) -> dict[Any, Any]:
    """Return a file's settings under today's names."""
    return with_new_names(raw_settings(path))


def raw_settings(path: Path) -> dict[Any, Any]:
    """Return what a file says, not to be changed; ConfigError where it is not YAML of settings."""
    state = path.stat()
    return _parsed(path, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=256)
def _parsed(path: Path, _: tuple[int, int]) -> dict[Any, Any]:
    """Return what a file of a certain state says: a composition looks at each several times."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start + 1}): save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{path}{line} is not valid YAML: {problem}.") from None
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path} must hold lines of KEY: VALUE, got {_yaml(content)}.")
    return content or {}


def included_files(defaults: Any, group: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield group and name of each file that a defaults list names outright."""
    if not isinstance(defaults, list):
        raise ConfigError(f"`defaults` in {path} must be {_ENTRIES}, got {defaults!r}.")
    for entry in defaults:
        if isinstance(entry, str):
            key, name = group, entry
        elif isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry)), str):
            ((key, name),) = entry.items()
            key = key.split()[-1].removesuffix(_GROUP_SUFFIX).removeprefix("/")
        else:
            raise ConfigError(f"`defaults` in {path} must be {_ENTRIES}, got the entry {entry!r}.")
        if isinstance(name, str) and name != "_self_":
            yield key, name


def _check_keys(content: dict[Any, Any], prefix: str, path: Path) -> None:
    for key, value in content.items():
        if not isinstance(key, str):
            raise ConfigError(f"the key `{prefix}{_yaml(key)}` in {path} must be the name of a setting.")
        name = prefix + key
        row = find(name)
        assert row is not None, "_unknown has found those without"
        if "." in key:
            nested = ": {".join(key.split(".")) + ": VALUE" + "}" * key.count(".")
            raise ConfigError(f"`{name}` in {path} must be written with its section: `{nested}`.")
        if row.section is not None and not isinstance(value, dict):
            raise ConfigError(
                f"`{name}` in {path} is a section: set one of its settings, `{name}: {{NAME: VALUE}}`."
            )
        if (row.is_open and not isinstance(value, dict)) or (
            record_of(row.type) and not fits(value, row.type)
        ):
            raise ConfigError(
                f"`{name}` in {path} must be {type_words(row.type)}, got {_yaml(value)} ({row.doc})."
            )
        if row.section is not None:
            _check_keys(value, f"{name}.", path)


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value)
