"""What a pipeline will start: every step's command line, checked before anything runs, and what is there.

A step reads what earlier ones have yet to write. Until then empty placeholders take its place, so that the
very checks that a stage makes of its configuration can be made of all steps at once.
"""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.config.compose import void_in
from rlt.config.schema import Config
from rlt.config.tree import get, rows
from rlt.config.weight_files import NO_TENSORS
from rlt.data.model_layout import ModelLayout, read_layout, write_layout
from rlt.data.own_layout import layout_to_come
from rlt.errors import ConfigError, RLTError
from rlt.launch.command_line import parse
from rlt.launch.main import check, compose_settled
from rlt.launch.preflight import check_local_data
from rlt.pipeline.steps import Step, read_steps, refuse_unused

INHERITED = ("results_dir", "recipe", "seed")
"""Settings of a pipeline that its steps take over, where they differ from their defaults and are read."""
_MODEL_FILES = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class PlannedStep:
    """A step with its place and its command."""

    step: Step
    config: Config
    """As far as it is known: resolved, with real paths."""
    words: tuple[str, ...]
    """The launcher's name, then what it gets."""
    needed: tuple[Path, ...]
    """What later steps read of it."""

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path(self.config.output_dir)

    @property
    def command(self) -> str:
        """What a user would type."""
        return shlex.join([f"./{self.words[0]}", *self.words[1:]])


def make_plan(config: Config, dirs: Sequence[Path]) -> list[PlannedStep]:
    """Return the steps in their order, all checked; raises RLTError naming the first that cannot run.

    `dirs` are the folders of run files, ours last.
    """
    inherited = {name: get(config, name) for name in INHERITED if get(config, name) != rows()[name].default}
    steps = read_steps(config.pipeline, config.output_dir, inherited, dirs)
    folders = [f"--config-dir={folder}" for folder in dirs[:-1]]
    directories: dict[str, str] = {}
    layouts: dict[str, ModelLayout | None] = {}
    """What each step will store with its model."""
    plan: list[PlannedStep] = []
    counted: set[str] = set()
    """Settings of pipeline.every that count in some step."""
    with tempfile.TemporaryDirectory(prefix="rlt-pipeline-") as scratch:
        for step in steps:
            stand_ins = StandIns(Path(scratch), directories, layouts)
            with _named(step, stand_ins):
                # What holds for all steps may be void in some of them.
                void = _void_in(step, [*folders, *step.words(stand_ins.place)])
                counted |= step.shared - void
                step = step.without(void)
                stage_config = _check(step, [*folders, *step.words(stand_ins.place)], stand_ins)
            words = step.launch([*folders, *step.words(lambda name, rest: directories[name] + rest)])
            directories[step.name] = stage_config.output_dir
            layouts[step.name] = layout_to_come(stage_config)
            needed = {rest for later in steps for name, rest in later.outputs() if name == step.name}
            paths = tuple(Path(stage_config.output_dir + rest) for rest in sorted(needed))
            plan.append(PlannedStep(step, stage_config, tuple(words), paths))
    refuse_unused({name for step in steps for name in step.shared} - counted)
    _keep_apart(plan, config.output_dir)
    return plan


class StandIns:
    """Empty files and folders for what is not written yet."""

    def __init__(
        self, scratch: Path, directories: Mapping[str, str], layouts: Mapping[str, ModelLayout | None]
    ) -> None:
        self._scratch = scratch
        self._directories = directories
        self._layouts = layouts
        self.used = False

    def place(self, name: str, rest: str) -> str:
        """Return the path of a step's output, or of its placeholder."""
        real = Path(self._directories[name] + rest)
        is_file = bool(real.suffix)  # `/traces.jsonl`, not the run directory or `/checkpoint-25`
        is_model = not is_file and any((real / file).is_file() for file in _MODEL_FILES)
        if real.is_file() or (is_model and self._will_stay(name, real)):
            return str(real)
        self.used = True
        path = Path(f"{self._stand_in(name)}{rest}")
        if is_file:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
            for file in _MODEL_FILES:
                (path / file).write_text("{}")
            (path / "model.safetensors").write_bytes(NO_TENSORS)
            if layout := self._layouts[name]:
                write_layout(path, layout)
        return str(path)

    def _will_stay(self, name: str, model: Path) -> bool:
        """Whether a step's model was trained with what the step would train it with now."""
        old, new = read_layout(model), self._layouts[name]
        if old is None or new is None:
            return True
        pairs = [
            (old.teacher_prompt, new.teacher_prompt),
            (old.student_prompt, new.student_prompt),
            (old.chat_template_kwargs, new.chat_template_kwargs),
        ]
        return old.tags == new.tags and all(after in (None, before) for before, after in pairs)

    def real(self, text: str) -> str:
        """Return a text with the real paths in place of placeholders."""
        for name, directory in self._directories.items():
            text = text.replace(self._stand_in(name), directory)
        return text

    def _stand_in(self, name: str) -> str:
        return f"{self._scratch}/{name}.step"  # no other step's is a beginning of it


def _void_in(step: Step, words: Sequence[str]) -> set[str]:
    """Return the settings that hold for all steps, and that others make void in this one."""
    return void_in(words) & step.shared if step.shared else set()


def _check(step: Step, words: Sequence[str], stand_ins: StandIns) -> Config:
    """Return the step's configuration, having checked it with its placeholders."""
    script, *typed = step.launch(words)
    line = parse(script, typed)
    config = compose_settled(line)
    if config.stage == "pipeline":
        raise ConfigError("it is a pipeline itself: name its steps here instead.")
    check(script, line, config)
    if stand_ins.used:
        return _with_texts(config, stand_ins.real)
    check_local_data(config)
    return config


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a configuration, or a value of it, with all of its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_with_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _with_texts(item, change) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _with_texts(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    return value


@contextmanager
def _named(step: Step, stand_ins: StandIns) -> Iterator[None]:
    """Say which step an error is about."""
    try:
        yield
    except RLTError as error:
        text = stand_ins.real(str(error)).replace(" on the command line", "")
        raise type(error)(f"step `{step.name}`: {text}") from None


def _keep_apart(plan: Sequence[PlannedStep], output_dir: str) -> None:
    seen = {Path(output_dir).resolve(): "the pipeline"}
    for planned in plan:
        place = planned.directory.resolve()
        if place in seen:
            raise ConfigError(
                f"step `{planned.name}` would run in `output_dir={planned.config.output_dir}`, the directory "
                f"of {seen[place]}: leave output_dir out, or give another."
            )
        seen[place] = f"step `{planned.name}`"
