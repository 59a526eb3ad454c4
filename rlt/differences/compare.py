"""The original's configuration beside our released presets: one row for each thing that is not the same.

Values of the original are those of rlt/config/original/groups.py, or what Hydra composes in a checkout; those
of this project are composed as for a run. Settings that the original does not have are off and make no row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.config.compose import compose
from rlt.config.original.groups import Values, released
from rlt.config.original.prompt import read_teacher_prompt
from rlt.config.original.run_file import compose_run_file, resolved
from rlt.config.original.translate import meaning_of
from rlt.config.renames import GONE
from rlt.config.resolve import resolve
from rlt.config.schema import Config
from rlt.config.tree import get
from rlt.differences.records import (
    BEHAVIOURS,
    DELIBERATE,
    REASONS,
    RENAMED,
    RL,
    SFT,
    THERE,
    UNKNOWN,
    Reason,
)
from rlt.errors import ConfigError

NO_COUNTERPART = "no counterpart"
_NAMES = {
    *("model_log_name", "data_log_name", "trainer_log_name", "reward_log_name", "log_ctx_name", "exp_name"),
    *("wandb_group_name", "wandb_run_name"),
}
"""Keys that only make up names of runs."""
RUN_FILES = {SFT: "teacher_sft", RL: "teacher_rlt"}
"""Our stage -> the run file of the original release."""


@dataclass(frozen=True)
class Difference:
    """One row."""

    stages: tuple[str, ...]
    name: str
    """A key of the original, a setting of this project, or a behaviour in a few words."""
    kind: str
    there: str
    here: str
    switch: str
    why: str = ""

    @property
    def has_counterpart(self) -> bool:
        """Whether there is something here that the key of the original could set."""
        return self.switch != NO_COUNTERPART


def differences(checkout: Path | None = None) -> list[Difference]:
    """Return all rows; those of several stages that are alike are one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for stage in RUN_FILES:
        for name, kind, *rest in _of_stage(stage, _values(stage, checkout)):
            rows.setdefault((name, kind, *rest), []).append(stage)
    found = [Difference(tuple(stages), *row) for row, stages in rows.items()]
    found += [Difference(b.stages, b.name, b.kind, b.there, b.here, b.switch) for b in BEHAVIOURS]
    return found


def unlike_release(checkout: Path) -> list[tuple[str, str, str, str]]:
    """Return where a checkout is not the release: run file, key, the release's value, its own."""
    found = []
    for stage, run_file in RUN_FILES.items():
        known, own = _values(stage, None), _values(stage, checkout)
        for key in known.keys() | own.keys():
            is_of_release = key in known or (own.get(key) is not None and _is_setting(key, own, stage))
            if is_of_release and known.get(key) != own.get(key):
                found.append((run_file, key, shown(known.get(key)), shown(own.get(key))))
    return sorted(found)


def _is_setting(key: str, values: Values, stage: str) -> bool:
    return key not in GONE and bool(meaning_of(key, values, stage=stage).settings)


def prompt_of(checkout: Path) -> str:
    """Return one line on the teacher's prompt in a checkout."""
    try:
        text = read_teacher_prompt(str(checkout))
    except ConfigError as error:
        return str(error)
    return f"The teacher's prompt is the published one ({len(text)} characters)."


def _values(stage: str, checkout: Path | None) -> Values:
    run_file = RUN_FILES[stage]
    values = released(run_file) if checkout is None else compose_run_file(checkout / "cfgs", run_file)
    named = {key: resolved(value, values) for key, value in values.items() if key not in _NAMES}
    return {key: _without_date(value) for key, value in named.items()}


def _without_date(value: Any) -> Any:
    """Return a value in which what the clock says has its name."""
    return re.sub(r"(\$\{now:[^}]*\})+", "${exp_name}", value) if isinstance(value, str) else value


def preset(stage: str) -> Config:
    """Return our released preset of a stage, as a run without further words would use it."""
    return resolve(compose([f"run_cfg={stage}", "recipe=released"]))


def _of_stage(stage: str, values: Values) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a stage: name, kind, there, here, switch, why."""
    config = preset(stage)
    for key, value in values.items():
        meaning = meaning_of(key, values, stage=stage)
        if not meaning.settings and _says_something(key, value, meaning.note):
            yield key, DELIBERATE, shown(value), meaning.note or "", NO_COUNTERPART, ""
        for name, there in meaning.settings.items():
            here = value_of(config, name)
            if here != there:
                yield _deliberate(name, there, here)
            elif name != key:
                yield key, RENAMED, shown(value), f"{name}={shown(here)}", name, ""
    for name, there in THERE[stage].items():
        here = value_of(config, name)
        if here != there:
            yield _deliberate(name, there, here)


def _says_something(key: str, value: Any, note: str | None) -> bool:
    """Whether a key without counterpart is worth a row: one that is not empty, and more than a log's name."""
    if key in _NAMES or value is None or (note or "").startswith("is trainer."):
        return False
    return key in GONE or note is not None


def _deliberate(name: str, there: Any, here: Any) -> tuple[str, ...]:
    reason = REASONS.get(name)
    kind, given = (DELIBERATE, reason) if reason else (UNKNOWN, Reason(""))
    switch = given.switch or f"{name}={shown(there)}"
    return name, kind, shown(there), shown(here), switch, given.why


def value_of(config: Config, name: str) -> Any:
    """Return a setting's value, also one of trainer_args."""
    section, _, leaf = name.rpartition(".")
    return config.trainer_args.get(leaf) if section == "trainer_args" else get(config, name)


def shown(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
