"""What a user typed, as Hydra overrides: run files by path or name, closed keys, quoted text.

Every key is checked against the schema here, before Hydra sees it, so that an unknown one gets our
sentence whatever its prefix (`+`, `++`, `~`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from rlt.config.old_words import new_name, new_references, preset_words, tell
from rlt.config.renames import OTHER_FILES, SAME_FILES
from rlt.config.schema import RECIPES
from rlt.config.split_words import belongs_before, refuse_split
from rlt.config.stages import STAGES
from rlt.config.tree import Row, find, fits, record_of
from rlt.config.unknown import unknown_keys
from rlt.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parents[2] / "cfgs"
GLOBAL = "@_global_"
"""Group files set root keys and sections alike, so every group lives in Hydra's package `_global_`."""
_ON_COMMAND_LINE = "on the command line"
_LAUNCHER_WORDS = {
    "offload": "rests weights and optimizer in host memory",
    "zero1": "shards the optimizer only",
}
_OPTIONS = ("--dry-run", "--rehearse", "--help", "--explain", "--config-dir")
_ROWS = (".json", ".jsonl", ".csv", ".parquet")
"""Suffixes of data, which is not typed alone."""


@dataclass(frozen=True)
class CommandLine:
    """Hydra's view of a command line."""

    config_dirs: tuple[Path, ...]
    """Folders with groups, the first one that has a file wins; this project's comes last."""
    overrides: tuple[str, ...]
    run_file: str | None
    """The name of the run file, without folder and suffix."""


def read(words: Sequence[str]) -> CommandLine:
    """Return the folders and the Hydra overrides behind the words of a command line."""
    dirs, rest = _take_config_dirs(words)
    refuse_split(rest)
    overrides: list[str] = []
    run_file = None
    unknown: list[str] = []
    for before, word in zip([None, *rest], rest, strict=False):
        if word in _LAUNCHER_WORDS:
            raise ConfigError(
                f"`{word}` {_LAUNCHER_WORDS[word]} and is a word of the launcher: run "
                f"`./launch.sh cfgs/run_cfg/NAME.yaml … {word}` instead of train.py."
            )
        is_file = word.endswith((".yaml", ".yml")) and "=" not in word
        is_file = is_file or _names_run_file(word, [*dirs, CONFIG_DIR])
        key, equals, value = (f"run_cfg{GLOBAL}", "=", word) if is_file else word.partition("=")
        key = key.replace("@_global_", "")
        if key == "run_cfg" and (value.endswith((".yaml", ".yml")) or "/" in value):
            folder, value = _run_file(value, [*dirs, CONFIG_DIR])
            dirs.insert(0, folder)
        bare = key.lstrip("+~")
        if (now := new_name(bare)) != bare:
            tell(bare, _ON_COMMAND_LINE)
            key, bare = key.replace(bare, now), now
        if _is_key(bare) and (equals or key.startswith("~")) and not _is_known(bare, [*dirs, CONFIG_DIR]):
            unknown.append(bare)
            continue
        if not _is_key(bare) or not (equals or key.startswith("~")):
            raise _no_word(word, before, [*dirs, CONFIG_DIR])
        overrides.append(_override(key, equals, value, [*dirs, CONFIG_DIR]))
        if key == "run_cfg":
            _refuse_second(run_file, value)
            run_file = value
    if unknown:
        raise unknown_keys(unknown, _ON_COMMAND_LINE)
    ordered = dict.fromkeys([d for d in dirs if d != CONFIG_DIR] + [CONFIG_DIR])
    return CommandLine(tuple(ordered), tuple(overrides), run_file)


def _refuse_second(first: str | None, second: str) -> None:
    if first not in (None, second):
        raise ConfigError(
            f"{first} and {second} {_ON_COMMAND_LINE} are two run files: type one of them, and settings of "
            "the other as KEY=VALUE."
        )


def groups(dirs: Sequence[Path]) -> dict[str, list[str]]:
    """Return every configuration group in the folders with the names of its files."""
    found: dict[str, set[str]] = {}
    for folder in dirs:
        for group, name in _shipped(folder) if folder == CONFIG_DIR else _files_of(folder):
            found.setdefault(group, set()).add(name)
    return {group: sorted(names) for group, names in sorted(found.items())}


def _files_of(folder: Path) -> list[tuple[str, str]]:
    """Return the groups' files of a folder, each with its group."""
    files = folder.glob("*/*.yaml")
    return [(path.parent.name, path.stem) for path in files if path.parent.name != "accelerate"]


_shipped = cache(_files_of)
"""The project's own files, which stay as they are while a program runs; a user's may be written meanwhile."""


def _is_key(bare: str) -> bool:
    return not bare.startswith("--") and re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", bare) is not None


def _is_known(bare: str, dirs: Sequence[Path]) -> bool:
    return bare in groups(dirs) or bare == "recipe" or find(bare) is not None


def _no_word(word: str, before: str | None, dirs: Sequence[Path]) -> ConfigError:
    """Return the error for a word that is neither KEY=VALUE nor anything else that is known."""
    key, equals, _ = word.partition("=")
    near = get_close_matches(key, _OPTIONS, n=1, cutoff=0.75)
    if key.startswith("--"):
        hint = f"did you mean {near[0]}?" if near else "settings are typed KEY=VALUE, without dashes."
        return ConfigError(f"`{key}` {_ON_COMMAND_LINE} is no option: {hint}")
    if Path(word).suffix in _ROWS:
        return ConfigError(f"`{word}` {_ON_COMMAND_LINE} is not a run file: type dataset_id_or_path={word}.")
    names = [*groups(dirs).get("run_cfg", []), *_LAUNCHER_WORDS]
    near = near or get_close_matches(Path(word).stem, names, n=1, cutoff=0.75)
    hint = f": did you mean {near[0]}?" if near else f"{belongs_before(word, before)}."
    return ConfigError(
        f"`{key}{equals}` {_ON_COMMAND_LINE} is not KEY=VALUE, a run file, or a known word{hint}"
    )


def _names_run_file(word: str, dirs: Sequence[Path]) -> bool:
    """Return whether a word alone is a run file's name, or its path without suffix."""
    folder, _, name = word.rpartition("/")
    in_group = folder in ("", "run_cfg", "cfgs/run_cfg") or folder.endswith("/run_cfg")
    return in_group and name in (*groups(dirs).get("run_cfg", []), *OTHER_FILES["run_cfg"])


def _take_config_dirs(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    dirs: list[Path] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        option, equals, value = word.partition("=")
        if option != "--config-dir":
            rest.append(word)
            continue
        typed = value if equals else next(remaining, "")
        if not typed or not Path(typed).expanduser().is_dir():
            raise ConfigError(f"--config-dir must be a folder that holds run_cfg/NAME.yaml, got '{typed}'.")
        dirs.append(Path(typed).expanduser().resolve())
    return dirs, rest


def _run_file(value: str, dirs: Sequence[Path]) -> tuple[Path, str]:
    """Return the configuration folder and the name of a run file given as a path."""
    typed = Path(value).expanduser()
    typed = typed if typed.suffix or not typed.name else typed.with_suffix(".yaml")
    # Also run_cfg/NAME and NAME alone, as the launchers of the original release took them.
    places = [place for folder in dirs for place in (folder.parent, folder, folder / "run_cfg")]
    candidates = [typed.absolute(), *(place / typed for place in places)]
    path = next((c.resolve() for c in candidates if c.is_file()), None)
    if path is None:
        raise unknown_run_file(value, dirs)
    if path.parent.name != "run_cfg":
        raise ConfigError(
            f"run_cfg={value} must lie in a folder named run_cfg, got {path.parent}: move it to "
            f"{path.parent}/run_cfg/{path.name}."
        )
    return path.parent.parent, path.stem


def unknown_run_file(value: str, dirs: Sequence[Path]) -> ConfigError:
    """Return the error for a run file that does not exist, with those that do."""
    if instead := OTHER_FILES["run_cfg"].get(Path(value).stem):
        return ConfigError(f"run_cfg={value} is a file of the original release: it is {instead}.")
    return ConfigError(
        f"run_cfg={value} does not exist"
        f"{_meant(Path(value).stem, groups(dirs).get('run_cfg', []), run_file_names(dirs))} "
        "(python train.py --help lists all; --config-dir DIR adds yours)."
    )


def unknown_option(group: str, name: str, known: Sequence[str]) -> ConfigError:
    """Return the error for a file of a group that does not exist, with those that do."""
    if instead := OTHER_FILES.get(group, {}).get(name):
        return ConfigError(f"{group}={name} is a file of the original release: it is {instead}.")
    return ConfigError(f"{group}={name} does not exist{_meant(name, known)}.")


def run_file_names(dirs: Sequence[Path]) -> str:
    """Return the run files that a sentence lists: one of each stage, and the user's own."""
    names = groups(dirs).get("run_cfg", [])
    ours = {path.stem for path in (CONFIG_DIR / "run_cfg").glob("*.yaml")}
    first = [stage for stage in STAGES if stage in names]
    return ", ".join([*first, *(name for name in names if name not in ours)])


def _meant(name: str, known: Sequence[str], shown: str = "") -> str:
    """Return the end of a sentence about an unknown name: the nearest one, or those that there are."""
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f": did you mean {near[0]}?" if near else f"; there are: {shown or ', '.join(known)}"


def _override(key: str, equals: str, value: str, dirs: Sequence[Path]) -> str:
    """Return one Hydra override; raises ConfigError for a key that the schema does not have."""
    bare = key.lstrip("+~")
    prefix = key[: len(key) - len(bare)]
    known = {**groups(dirs), "recipe": list(RECIPES)}
    if bare in known:
        if value not in known[bare]:
            value = SAME_FILES.get(bare, {}).get(value, value)
        if words := preset_words(bare, value):
            tell(f"{bare}={value}", _ON_COMMAND_LINE, words)
        elif value not in known[bare]:
            raise (
                unknown_run_file(value, dirs)
                if bare == "run_cfg"
                else unknown_option(bare, value, known[bare])
            )
        return f"{bare}={value}" if bare == "recipe" else f"{bare}{GLOBAL}={value}"
    row = find(bare)
    assert row is not None, "read() has refused unknown keys"
    if prefix == "+" and not row.is_open:
        raise ConfigError(f"`{key}` adds a key, but `{bare}` is a setting already: type {bare}={value}.")
    if prefix.startswith("~") and row.name == bare:
        raise ConfigError(f"`{key}` cannot be removed: give it another value (its default is {row.default}).")
    if row.is_open and (not prefix or (prefix == "+" and row.name != bare)):
        prefix = "++"  # a dict is closed to command lines under a schema
    return f"{prefix}{bare}{equals}{_readable(bare, value, row)}"


def _readable(name: str, value: str, row: Row) -> str:
    """Return the value so that Hydra reads what the user meant."""
    if name.startswith("layout.") and "${" in value and not value.startswith("file:"):
        return quoted(literal(value))  # a prompt about shell or templates, say
    value = new_references(value)
    parsed = _parse(f"x={value}")
    if record_of(row.type):
        if parsed is None or parsed.is_sweep_override() or not fits(_plain(parsed.value()), row.type):
            raise ConfigError(f"`{name}={value}` on the command line must be {row.type_name} ({row.doc}).")
        return value
    if row.is_text and row.name == name:
        # Prompts and paths hold commas, brackets, equal signs and digits: take them as they are.
        return value if parsed is not None and (parsed.value() is None or _is_word(parsed)) else quoted(value)
    if parsed is not None and not parsed.is_sweep_override():
        return value
    if row.type_name == "a list of texts" and value.startswith("[") and value.endswith("]"):
        return "[" + ",".join(quoted(part.strip()) for part in value[1:-1].split(",")) + "]"
    if row.is_open and row.name != name:
        return quoted(value)
    hint = (
        f"write a list as {name}=[{value}]"
        if row.type_name.startswith("a list")
        else f"it must be {row.type_name}"
    )
    raise ConfigError(f"`{name}={value}` on the command line cannot be read as one value: {hint}.")


def literal(text: str) -> str:
    """Return a text in which OmegaConf sees no `${NAME}` to replace."""
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", text)


def _parse(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def value_of(word: str) -> Any:
    """Return the value of an override as plain Python; None for one that Hydra cannot parse."""
    parsed = _parse(word)
    return None if parsed is None or parsed.is_sweep_override() else _plain(parsed.value())


def _plain(value: Any) -> Any:
    """Return what Hydra parsed with its quoted texts as plain ones."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _is_word(parsed: Override) -> bool:
    return not parsed.is_sweep_override() and isinstance(parsed.value(), str | QuotedString)


def quoted(value: str) -> str:
    """Return a text in Hydra's quotes, where a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"
