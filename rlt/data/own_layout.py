"""Whose tags and prompts a run uses: those that its models were trained with, unless the user says otherwise.

`adopt_layouts` is between composing a configuration and checking it, so that launchers, dry runs, stages,
cards and saved configurations all see the prompts that are really used. What is not typed becomes the model's
own; what is typed must be it, or is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from rlt.config.bounds import check_bounds
from rlt.config.files import LAYOUT_FILE, prompt_is_here
from rlt.config.judges import reads_student_model
from rlt.config.original.skythought import is_skythought
from rlt.config.schema import TEXT_PROMPT, Config, stage_of
from rlt.config.tree import get, rows
from rlt.data.model_layout import ModelLayout, digest, find_layout
from rlt.data.owners import STUDENT, TAGS, TEACHER, Owner, owners_of
from rlt.data.prompts import FROM_DATASET, student_prompt, teacher_prompt
from rlt.errors import ConfigError
from rlt.formats.tags import tag_style

logger = logging.getLogger(__name__)
TURN_END = "distill.turn_end"
SWITCHES, DATE = "layout.chat_template_kwargs", "layout.date"
_OVERRIDE = "take layout.override=true to use it all the same"
_ALIKE = "take models of the same tags"


def adopt_layouts(
    config: Config, chosen: Mapping[str, str], *, download: bool = False, tell: bool = True
) -> Config:
    """Return a resolved configuration with the tags and prompts of its models.

    `chosen` are the settings that the user typed, with where (config/typed.py). Applied twice it changes
    nothing more. Raises ConfigError for a typed one that is not the model's, and ModelError for a record that
    cannot be read. `tell` says on the log whose prompt is taken; `download` looks on the Hub, too.
    """
    if not stage_of(config).reads(TAGS):
        return config
    check_bounds(config)  # the other checks come later: what a model brings is checked with the rest
    config = deepcopy(config)
    owners = list(owners_of(config, partial(find_layout, download=download)))
    adoption = _Adoption(config, chosen, logger.info if tell else _say_nothing, looks_elsewhere=download)
    for owner in owners:
        adoption.take_tags(owner)
        adoption.take_template(owner)
    for owner in owners:
        adoption.take_prompt(owner)
        adoption.take_judges_prompt(owner)
        adoption.take_turn_end(owner)
    if config.layout.override and not adoption.overridden:
        adoption.say(
            "layout.override=true changes nothing: no typed tags or prompts differ from a model's own"
        )
    return config


class _Adoption:
    """One pass over the models of a configuration, which it changes."""

    def __init__(
        self, config: Config, chosen: Mapping[str, str], say: Callable[..., None], *, looks_elsewhere: bool
    ) -> None:
        self._config = config
        self._looks_elsewhere = looks_elsewhere
        self._chosen = chosen
        self.say = say
        self.overridden = False
        self._has_tags = False
        self._settled: set[str] = set()

    def take_tags(self, owner: Owner) -> None:
        """Take a model's tags, or raise ConfigError where others are typed or are another model's."""
        if owner.layout is None:
            return
        own, now, chosen = owner.layout.tags, self._config.layout.tags, self._chosen.get(TAGS)
        is_settled, self._has_tags = self._has_tags, True
        if chosen is None and not is_settled:
            self._config.layout.tags = own
            if own != rows()[TAGS].default:
                self.say("%s=%s: %s was trained with these tags (%s)", TAGS, own, owner.name, LAYOUT_FILE)
        elif own != now and not self._may_differ(owner):
            where, remedy = (chosen, "remove it") if chosen else ("of another model of the run", _ALIKE)
            raise ConfigError(
                f"`{TAGS}={now}` {where} is not what {owner.name} was trained with, {own}, as its "
                f"{LAYOUT_FILE} says: {remedy}, or {_OVERRIDE}."
            )

    def take_template(self, owner: Owner) -> None:
        """Take switches and date of a model's chat template, or raise ConfigError where others are typed.

        Where models of a run differ, the first's are in the configuration, and each is asked under its own
        (stages/layouts.py).
        """
        if owner.layout is None:
            return
        owned = {SWITCHES: owner.layout.chat_template_kwargs, DATE: owner.layout.date}
        for setting, own in owned.items():
            now = get(self._config, setting)
            where = self._chosen.get(setting) or self._part_chosen(setting)
            if own is None or (own == now and setting in self._settled):
                continue
            if where is None and setting not in self._settled:
                self._settled.add(setting)
                if own != now:
                    setattr(self._config.layout, setting.removeprefix("layout."), deepcopy(own))
                    self.say("%s=%s: %s was trained with it (%s)", setting, own, owner.name, LAYOUT_FILE)
            elif where is not None and own != now and not self._may_differ(owner):
                raise ConfigError(
                    f"`{setting}={now}` {where} is not what {owner.name} was trained with, {own}, as its "
                    f"{LAYOUT_FILE} says: remove it, or {_OVERRIDE}."
                )

    def _part_chosen(self, setting: str) -> str | None:
        """Return where the user typed one of a setting's keys, None where none."""
        return next((at for name, at in self._chosen.items() if name.startswith(f"{setting}.")), None)

    def take_prompt(self, owner: Owner) -> None:
        """Take a model's prompt, or raise ConfigError where another one is typed."""
        setting, own = owner.prompt_setting, owner.prompt
        if own is None:
            self._tell_of_none(owner)
            return
        where = self._where(setting)
        if where is None and _by_skythought(self._config):
            self.say("SkyThought asks under a system prompt of its own: %s=skythought:DIR takes it", setting)
        if where is not None and not self._is_here(setting):
            self.say("%s: compared with %s's own once it is on this machine", setting, owner.name)
            return
        now = self._text(setting) if self._is_here(setting) and self._has_own(setting) else None
        if now == own:
            if where is None:
                self.say("%s is %s's own, from its %s: %s", setting, owner.name, LAYOUT_FILE, short(own))
        elif where is None:
            if now is not None or not _is_of_its_rows(owner):
                self._take(setting, own, owner)
        elif now is None:
            self.say("%s: each row must bring the prompt that %s was trained with", setting, owner.name)
        elif _by_skythought(self._config) and is_skythought(now):
            values = (setting, owner.name, short(own))
            self.say("%s is SkyThought's own, as its protocol asks; %s was trained with %s", *values)
        elif not self._may_differ(owner):
            raise ConfigError(
                f"`{setting}` {where} is not the {owner.role}'s prompt that {owner.name} was trained with "
                f"({short(own)}, as its {LAYOUT_FILE} says), and under another one it does not do what it "
                f"was taught: remove it, or {_OVERRIDE}."
            )
        else:
            self.say("%s %s is used, which is not %s's own (%s)", setting, where, owner.name, short(own))

    def take_judges_prompt(self, owner: Owner) -> None:
        """Take the prompt of the student that judged a teacher where the run names no student of its own."""
        if owner.role != "teacher" or owner.layout is None or owner.layout.student_prompt is None:
            return
        if owner.setting == "teacher_model":  # it judges another student than the one that judged it
            return
        if not stage_of(self._config).reads(STUDENT) or not (
            owner.is_checkpoint or not reads_student_model(self._config)
        ):
            return
        own = owner.layout.student_prompt
        now = self._text(STUDENT) if self._is_here(STUDENT) else None
        if self._where(STUDENT) is None and now != own:
            if now is not None or not _is_of_its_rows(owner):
                self._take(STUDENT, own, owner)
        elif now not in (own, None):
            self.say("%s: the student that judged %s had another one (%s)", STUDENT, owner.name, short(own))

    def take_turn_end(self, owner: Owner) -> None:
        """Have a student that is trained further end its turn as it does."""
        if owner.layout is None or owner.layout.turn_end_is is None or owner.setting == "student_model":
            return
        config, own = self._config, owner.layout.turn_end_is
        if not stage_of(config).reads(TURN_END) or owner.layout.role != "student":
            return
        where = self._chosen.get(TURN_END)
        if where is None:
            self.say("%s=%s: %s ends its turn with %s", TURN_END, own, owner.name, owner.layout.turn_end)
            config.distill.turn_end = own
        elif config.distill.turn_end != own and not self._may_differ(owner):
            raise ConfigError(
                f"`{TURN_END}={config.distill.turn_end}` {where} is not how {owner.name} was taught to end "
                f"its turn ({own}: {owner.layout.turn_end}, as its {LAYOUT_FILE} says): remove it, or "
                f"{_OVERRIDE}."
            )

    def _may_differ(self, owner: Owner) -> bool:
        if self._config.layout.override:
            self.overridden = True
        return self._config.layout.override or owner.is_checkpoint

    def _take(self, setting: str, own: str, owner: Owner) -> None:
        _put(self._config, setting, TEXT_PROMPT + own)
        self.say("%s is %s's own, from its %s: %s", setting, owner.name, LAYOUT_FILE, short(own))

    def _tell_of_none(self, owner: Owner) -> None:
        """Say which prompt a model gets that has none of its own."""
        setting = owner.prompt_setting
        value = _value(self._config, setting)
        if value is None:
            setting, value = STUDENT, self._config.layout.student_prompt
        if owner.layout is None:
            why = f"{owner.name} has no {LAYOUT_FILE}"
        else:
            why = f"the {LAYOUT_FILE} of {owner.name} holds no {owner.role}'s prompt"
            why += f" ({owner.layout.note})" if owner.layout.note else ""
        text = self._text(setting) if self._is_here(setting) else None
        what = f"{setting}={_begin(value)}" + ("" if text is None else f", sha256 {digest(text):.12s}")
        how = "the run continues with" if owner.is_checkpoint else "this run prompts it with"
        self.say("%s, so %s %s", why, how, what)

    def _where(self, setting: str) -> str | None:
        """Return where the user typed a prompt, None where he did not."""
        if setting.startswith("reward.students."):
            return None if _value(self._config, setting) is None else self._chosen.get("reward.students")
        return self._chosen.get(setting)

    def _has_own(self, setting: str) -> bool:
        """Whether a further student has a prompt setting of its own; all others have."""
        return _value(self._config, setting) is not None

    def _is_here(self, setting: str) -> bool:
        return self._looks_elsewhere or prompt_is_here(_value(self._config, setting))

    def _text(self, setting: str) -> str | None:
        """Return the text that a prompt setting means, None for that of each row."""
        return prompt_text(self._config, setting)


def _is_of_its_rows(owner: Owner) -> bool:
    """Whether a run that continues finds its prompt in the rows, as it did before."""
    return owner.is_checkpoint and owner.layout is not None and owner.layout.student_prompt_from_dataset


def prompt_text(config: Config, setting: str) -> str | None:
    """Return the system prompt that a setting means, None for that of each row."""
    tags = tag_style(config.layout.tags)
    if setting == TEACHER:
        return teacher_prompt(config.layout.teacher_prompt, tags)
    value = _value(config, setting)
    return student_prompt(config.layout.student_prompt if value is None else value, tags)


def prompt_of_rows(config: Config, model: str | None, setting: str, revision: str | None) -> str | None:
    """Return the text that each row's own prompt must be; None where it may be any.

    It may not where the prompt is from_dataset and the model was trained with a prompt that is known.
    """
    if model is None or setting != FROM_DATASET or config.layout.override:
        return None
    layout = find_layout(model, revision)
    return layout.student_prompt if layout is not None and layout.role == "student" else None


def layout_to_come(config: Config) -> ModelLayout | None:
    """Return what a training will store with its model, as far as its settings decide; None without one."""
    stage = stage_of(config)
    if not stage.trains or stage.model is None:
        return None
    teacher = prompt_text(config, TEACHER) if stage.reads(TEACHER) else None
    is_known = stage.reads(STUDENT) and prompt_is_here(config.layout.student_prompt)
    student = prompt_text(config, STUDENT) if is_known else None
    switches = (
        dict(config.layout.chat_template_kwargs) or None
    )  # a template may have one switched on by itself
    return ModelLayout(*(stage.model, config.layout.tags, teacher, student), chat_template_kwargs=switches)


def used_prompts(config: Config) -> dict[str, dict[str, Any]]:
    """Return, for run.json and cards, which prompts and tags a run really uses, and whose they are."""
    found: dict[str, dict[str, Any]] = {}
    for owner in owners_of(config):
        text = prompt_text(config, owner.prompt_setting)
        found[owner.prompt_setting] = {**described(text), "is": _whose(owner, text)}
    if stage_of(config).reads(STUDENT) and STUDENT not in found:  # of the chats that students are trained on
        text = prompt_text(config, STUDENT)
        found[STUDENT] = {**described(text), "is": "for students that are trained on the rows"}
    return found


def described(prompt: str | None) -> dict[str, Any]:
    """Return a prompt's beginning and hash, as run.json has them; None is that of each row."""
    if prompt is None:
        return {"begins": "each row's own", "sha256": None}
    return {"begins": _begin(prompt), "sha256": digest(prompt)}


def _by_skythought(config: Config) -> bool:
    """Whether an evaluation follows SkyThought's protocol (eval_cfg=skythought)."""
    return stage_of(config).reads("evaluate.tasks") and config.evaluate.extraction == "skythought"


def _whose(owner: Owner, text: str | None) -> str:
    model = Path(owner.model).name
    if owner.prompt is None:
        missing = "no rlt_layout.json" if owner.layout is None else f"no {owner.role}'s prompt of its own"
        return f"as set: {model} has {missing}"
    if text in (owner.prompt, None):
        return f"{model}'s own"
    if is_skythought(text):
        return f"SkyThought's own; not {model}'s own (sha256 {digest(owner.prompt):.12s})"
    return f"not {model}'s own (sha256 {digest(owner.prompt):.12s}): layout.override=true"


def short(prompt: str) -> str:
    """Return a prompt's start and the start of its hash."""
    return f"'{_begin(prompt)}', sha256 {digest(prompt):.12s}"


def _begin(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}…"


def _value(config: Config, setting: str) -> str | None:
    if setting.startswith("reward.students."):
        return next(s.prompt for s in config.reward.students if setting == f"reward.students.{s.name}.prompt")
    return get(config, setting)


def _put(config: Config, setting: str, value: str) -> None:
    if setting.startswith("reward.students."):
        for student in config.reward.students:
            if setting == f"reward.students.{student.name}.prompt":
                student.prompt = value
    else:
        setattr(config.layout, setting.removeprefix("layout."), value)


def _say_nothing(*_: object) -> None:
    """For those who check what another process will say."""
