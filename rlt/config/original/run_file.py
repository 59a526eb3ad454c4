"""A run file of the original release: its own keys, and its values with the files that it builds on.

In a checkout, or in a folder made like one, Hydra composes it as the original program does. Anywhere else the
released group files are taken from groups.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlt.config.original.groups import DEFAULTS, GROUPS, RUN_FILES, Values, effective
from rlt.errors import ConfigError

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_NESTED = ("model_args", "trainer_args")
"""Mappings whose keys count as keys of the root."""
_MISSING = "???"


@dataclass(frozen=True)
class OldRunFile:
    """A run file of the original release, read."""

    path: Path
    typed: Values
    """The keys in it and in the run files that it builds on."""
    values: Values
    """What it comes to: every key with its value."""
    notes: tuple[str, ...] = ()
    """What could not be read, a few words each."""

    @property
    def stage(self) -> str:
        """Return our stage for it."""
        if "num_generations" in self.values:
            return "teacher_rl"
        return "teacher_sft" if "mask_teacher_answer" in self.values else "student_sft"


def read_run_file(path: Path) -> OldRunFile:
    """Return a run file of the original release; ConfigError where it is none."""
    content = _read(path)
    if "stage" in content:
        raise ConfigError(f"{path} sets `stage`, so it is a run file of this project already.")
    notes: list[str] = []
    choices, typed = _follow(path, content, notes)
    cfgs = path.resolve().parent.parent
    if path.resolve().parent.name == "run_cfg" and (cfgs / "trainer_cfg" / "base_sft.yaml").is_file():
        values = {**typed, **compose_run_file(cfgs, path.stem)}
    else:
        values = effective(choices, typed)
        for group, name in choices.items():
            if name not in GROUPS.get(group, {}):
                notes.append(f"{group}: {name} is not a file of the release, and not beside this one")
    values = {key: resolved(value, values) for key, value in values.items()}
    return OldRunFile(path, {key: values[key] for key in typed if key in values}, values, tuple(notes))


def compose_run_file(cfgs: Path, name: str) -> Values:
    """Return what Hydra makes of a run file in the folder cfgs/ of a checkout, references unresolved."""
    try:
        with initialize_config_dir(config_dir=str(cfgs.resolve()), version_base="1.3"):
            tree = compose("train", [f"run_cfg@_global_={name}"])
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        what = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
        raise ConfigError(f"{cfgs}/run_cfg/{name}.yaml cannot be composed: {what}.") from None
    return dict(_flat(cast(Values, OmegaConf.to_container(tree, resolve=False)), wiring=True))


def resolved(value: Any, values: Values, depth: int = 8) -> Any:
    """Return a value with its `${NAME}` replaced, as far as names are known and have a plain value."""
    if isinstance(value, list):
        return [resolved(item, values, depth) for item in value]
    if not isinstance(value, str) or depth == 0:
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole and whole[1] in values and values[whole[1]] != value:
        return resolved(values[whole[1]], values, depth - 1)

    def known(match: re.Match[str]) -> str:
        found = values.get(match[1])
        return match[0] if found is None or isinstance(found, list | dict) else str(found)

    text = _REFERENCE.sub(known, value)
    return text if text == value else resolved(text, values, depth - 1)


def _read(path: Path) -> Values:
    """Return the content of a YAML file, numbers read as Hydra reads them (1e-4 is one)."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or 'an error').lower()}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except (OmegaConfBaseException, YAMLError) as error:
        what = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
        raise ConfigError(f"{path} is not valid YAML: {what}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} must hold lines of KEY: VALUE, as a run file does.")
    return cast(Values, content)


def _follow(
    path: Path, content: Values, notes: list[str], above: tuple[Path, ...] = ()
) -> tuple[dict[str, str], Values]:
    """Return the groups that a run file chooses, and its values over those of run files it builds on."""
    choices: dict[str, str] = {}
    typed: Values = {}
    defaults = content.get("defaults") or []
    own_came = False
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if entry == "_self_":
            typed |= dict(_flat(content))
            own_came = True
        elif isinstance(entry, dict) and len(entry) == 1:
            ((key, name),) = entry.items()
            group = str(key).split()[-1].removesuffix("@_global_").lstrip("/")
            if group in DEFAULTS and isinstance(name, str):
                choices[group] = name
            else:
                notes.append(f"`{key}: {name}` in defaults chooses nothing that is known")
        elif isinstance(entry, str) and (other := path.with_name(f"{entry}.yaml")).is_file():
            if other in above or other == path:
                raise ConfigError(f"`defaults` in {path} go round in a circle at {entry}.")
            more, below = _follow(other, _read(other), notes, (*above, path))
            choices, typed = choices | more, typed | below
        elif isinstance(entry, str) and entry in RUN_FILES:
            choices, typed = choices | RUN_FILES[entry][0], typed | RUN_FILES[entry][1]
        else:
            notes.append(f"`{entry}` in defaults is not beside the file")
    return choices, typed if own_came else typed | dict(_flat(content))


def _flat(content: Values, *, wiring: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield keys and values; those of model_args and trainer_args as keys of the root.

    `wiring` is for a composed tree, in which such mappings only repeat keys of the root.
    """
    for key, value in content.items():
        if key == "defaults" or value == _MISSING:
            continue
        if isinstance(value, dict) and (key in _NESTED or "_target_" in value):
            if wiring:
                continue
            inner = {k: v for k, v in value.items() if not k.startswith("_") and v != _MISSING}
            yield from inner.items() if key in _NESTED else [(key, value)]
        else:
            yield key, value
