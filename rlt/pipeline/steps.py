"""The steps of a pipeline: their settings as command lines, the references between them, and their order.

A reference is `{STEP}` in a value, and is replaced by that step's run directory; `{{STEP}}` is the text
itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlt.config.old_words import moved_in, new_name, tell
from rlt.config.overrides import CONFIG_DIR, groups, quoted
from rlt.config.schema import PipelineSettings
from rlt.config.stage import Stage
from rlt.config.stages import STAGES
from rlt.config.tree import find
from rlt.config.unknown import unknown_key
from rlt.config.yaml_files import stage_of_run_file
from rlt.errors import ConfigError

_NAME = r"[A-Za-z][\w-]*"
_BRACED = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}([^{{}}]*)")
_LAUNCH = ("gpus", "strategy")
"""Keys of a step that are the launcher's, not settings."""
_GROUP = "_cfg"

Place = Callable[[str, str], str]
"""(name of a step, the rest of the path) -> the path that both together mean."""


@dataclass(frozen=True)
class Step:
    """One stage of a pipeline, as its run file's words."""

    name: str
    run_cfg: str
    settings: Mapping[str, Any]
    """By dotted name; values may hold references."""
    gpus: tuple[str, ...] = ()
    """What is typed before the run file: none, N, or GENERATION and TRAINING."""
    strategy: str | None = None
    shared: frozenset[str] = frozenset()
    """Of `settings`, those that hold for all steps."""

    @property
    def references(self) -> list[str]:
        """The names of the steps that it reads."""
        found = (m[2] for text in _texts(self.settings) for m in _BRACED.finditer(text))
        return list(dict.fromkeys(filter(None, found)))

    def outputs(self) -> list[tuple[str, str]]:
        """Return each referenced step with the rest of the path, `/traces.jsonl` for one."""
        found = (m.groups() for text in _texts(self.settings) for m in _BRACED.finditer(text))
        return list(dict.fromkeys((name, rest) for _, name, rest in found if name))

    def words(self, place: Place) -> list[str]:
        """Return its configuration as typed on a command line, with every reference replaced by `place`."""
        words = [f"run_cfg={self.run_cfg}"]
        words += [f"{key}={_word(_filled(value, place))}" for key, value in self.settings.items()]
        return words

    def without(self, names: Iterable[str]) -> Step:
        """Return the step without some of its settings."""
        return replace(self, settings={k: v for k, v in self.settings.items() if k not in {*names}})

    def launch(self, words: Sequence[str]) -> list[str]:
        """Return the launcher's name and what it gets."""
        script = "launch_with_server.sh" if len(self.gpus) == 2 else "launch.sh"
        return [script, *self.gpus, *words, *filter(None, [self.strategy])]


def read_steps(
    pipeline: PipelineSettings,
    output_dir: str,
    inherited: Mapping[str, Any] | None = None,
    dirs: Sequence[Path] = (CONFIG_DIR,),
) -> list[Step]:
    """Return the steps in the order they run in: as they are written, but after all that they read.

    `inherited` are settings of the pipeline that hold for steps which do not set them; `dirs` are the folders
    of run files. Raises ConfigError for a name, key or reference that cannot be.
    """
    if not pipeline.steps:
        raise ConfigError("`pipeline.steps` is empty: give at least one, e.g. pipeline.steps.teacher_sft={}.")
    every = _settings(pipeline.every, "`pipeline.every`", pipeline.steps)
    unused = {key for key in every if find(key)}
    steps = []
    for name, own in pipeline.steps.items():
        if not re.fullmatch(_NAME, str(name)):
            raise ConfigError(
                f"`{name}` in pipeline.steps cannot name a step: take letters, digits, `_` and `-`."
            )
        if not isinstance(own, dict | None):
            raise ConfigError(
                f"step `{name}` must be a mapping of settings, got {own!r}: write `{name}: {{KEY: VALUE}}`."
            )
        own = _settings(own or {}, f"step `{name}`", pipeline.steps)
        run_cfg = _run_file({"run_cfg": name, **every, **own}, str(name), pipeline.prefix, dirs)
        stage = STAGES.get(own.get("stage") or stage_of_run_file(run_cfg, dirs) or "")
        given = {**(inherited or {}), "output_dir": f"{output_dir}/{name}", **every}
        given |= _moved(every, own, stage)
        given = {key: value for key, value in given.items() if _reads(stage, key)}
        unused -= given.keys()
        step = _step(str(name), {**given, **own, "run_cfg": run_cfg})
        steps.append(replace(step, shared=frozenset(every.keys() & step.settings.keys() - own.keys())))
    refuse_unused(unused)
    return _ordered(steps)


def _moved(every: Mapping[str, Any], own: Mapping[str, Any], stage: Stage | None) -> dict[str, Any]:
    """Return what holds for all steps under a name that this stage has another setting for, if it counts."""
    if not {**every, **own}.get("evaluation.benchmarks.steps"):
        return {}
    return {new: every[old] for old, new in moved_in(stage).items() if old in every and new not in every}


def refuse_unused(names: Iterable[str]) -> None:
    """Raise ConfigError for settings of `pipeline.every` that count in no step."""
    for name in sorted(names):
        raise ConfigError(f"`{name}` in `pipeline.every` has no effect in any step: remove it.")


def _reads(stage: Stage | None, key: str) -> bool:
    """Whether a step of a stage gets what is for all: a setting that it reads, or no setting at all."""
    return stage is None or find(key) is None or stage.reads(key)


def _run_file(settings: Mapping[str, Any], name: str, prefix: str | None, dirs: Sequence[Path]) -> str:
    """Return the run file of a step, with the pipeline's prefix where there is such a one."""
    run_cfg = settings["run_cfg"]
    if not isinstance(run_cfg, str) or not run_cfg:
        raise ConfigError(f"`run_cfg` of step `{name}` must be a name, got {run_cfg!r}.")
    has_prefixed = prefix and f"{prefix}{run_cfg}" in groups(dirs).get("run_cfg", [])
    return f"{prefix}{run_cfg}" if has_prefixed else run_cfg


def _step(name: str, settings: dict[str, Any]) -> Step:
    run_cfg, gpus, strategy = (settings.pop(key, None) for key in ("run_cfg", *_LAUNCH))
    counts = () if gpus is None else tuple(str(gpus).split())
    if len(counts) > 2 or not all(count.isdigit() and int(count) for count in counts):
        raise ConfigError(
            f"`gpus` of step `{name}` must be a number, or two of them (`4 4`: generation and training), got "
            f"{gpus!r}."
        )
    if not isinstance(strategy, str | None) or strategy == "":
        raise ConfigError(f"`strategy` of step `{name}` must be a name, got {strategy!r}.")
    return Step(name, run_cfg, settings, counts, strategy)


def _settings(values: Mapping[str, Any], where: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted name; ConfigError for a key that nothing reads."""
    flat = dict(_flat(values, where, names))
    if "resume_from" in flat:
        raise ConfigError(
            f"`resume_from` in {where} is not needed: what was interrupted continues by itself."
        )
    return flat


def _flat(
    values: Mapping[str, Any], where: str, names: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        typed = f"{prefix}{key}"
        row = find(name := new_name(typed))
        if name != typed and (row is None or row.section is None):
            tell(typed, f"in {where}")
        if isinstance(value, dict) and [*value.values()] == [None] and (only := next(iter(value))) in names:
            raise ConfigError(f"`{name}` in {where} must be in quotes to name a step: '{{{only}}}'.")
        is_ours = not prefix and (key in ("run_cfg", *_LAUNCH) or str(key).endswith(_GROUP))
        if row is None and not is_ours:
            raise unknown_key(name, f"in {where}", sections=isinstance(value, dict))
        if row and isinstance(value, dict) and value and (row.section or (row.is_open and row.name == name)):
            yield from _flat(value, where, names, f"{typed}.")
        else:
            yield name, value


def _ordered(steps: Sequence[Step]) -> list[Step]:
    """Return the steps so that each comes after those it reads."""
    names = [step.name for step in steps]
    for step in steps:
        for name in step.references:
            if name not in names:
                raise ConfigError(
                    f"step `{step.name}` reads `{{{name}}}`, but there is no such step, only "
                    f"{', '.join(names)} (write `{{{{{name}}}}}` where the text itself is meant)."
                )
    ordered: list[Step] = []
    left = list(steps)
    while left:
        done = {step.name for step in ordered}
        ready = next((step for step in left if done.issuperset(step.references)), None)
        if ready is None:
            raise ConfigError(
                f"the steps {_circle(left, done)} read each other in a circle: remove one reference."
            )
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _circle(steps: Sequence[Step], done: set[str]) -> str:
    """Return a circle of references among steps of which each waits for another."""
    waits_for = {s.name: next(name for name in s.references if name not in done) for s in steps}
    path = [steps[0].name]
    while path[-1] not in path[:-1]:
        path.append(waits_for[path[-1]])
    return " -> ".join(path[path.index(path[-1]) :])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _filled(value: Any, place: Place) -> Any:
    if isinstance(value, str):
        filled = _BRACED.sub(lambda m: f"{{{m[1]}}}" if m[1] else place(m[2], m[3]), value)
        return os.path.expanduser(filled)
    if isinstance(value, dict):
        return {key: _filled(item, place) for key, item in value.items()}
    return [_filled(item, place) for item in value] if isinstance(value, list) else value


def _word(value: Any, *, nested: bool = False) -> str:
    """Return a value as Hydra reads it; a text on its own needs no quotes."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_word(item, nested=True)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_word(item, nested=True) for item in value) + "]"
    return quoted(value) if nested and isinstance(value, str) else str(value)
