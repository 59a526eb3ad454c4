"""A run file of the original release -> settings of this project on top of one of its run files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlt.config.compose import compose
from rlt.config.original.prompt import read_teacher_prompt
from rlt.config.original.run_file import OldRunFile
from rlt.config.original.translate import STRATOS, meaning_of
from rlt.config.renames import GONE, RENAMED
from rlt.config.schema import Config
from rlt.config.tree import find, get
from rlt.errors import ConfigError

_ONLY_TYPED = {"output_dir", "ddp_timeout", "ds3_gather_for_generation", "wandb_project", "report_to"}
"""Keys whose released defaults are of no consequence: they count where the run file itself has them."""


@dataclass
class Migrated:
    """What a run file comes to here."""

    stage: str
    settings: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Our settings by dotted name: the value, and a comment (what it was)."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Keys of the file that set nothing here, and why."""
    differs: dict[str, str] = field(default_factory=dict)
    """Keys whose value cannot be had here, so that a result may differ, and what to do."""

    notes: dict[str, str] = field(default_factory=dict)
    """Keys of the file with what is worth knowing of them."""

    def drop(self, name: str, why: str) -> None:
        """Take a setting out again, with the reason."""
        _, comment = self.settings.pop(name)
        self.dropped[name if not comment else comment.removeprefix("was ")] = why


def translate(old: OldRunFile) -> Migrated:
    """Return our settings for a run file: all that it names, and those of its groups that differ."""
    new = Migrated(old.stage)
    preset = compose([f"run_cfg={old.stage}"])
    for key in old.typed:
        _take(new, key, old)
    for key in old.values:
        if key not in old.typed and key not in _ONLY_TYPED and _is_old(key):
            _inherit(new, key, old, preset)
    new.settings["output_dir"] = _output_dir(old)
    for name, value, comment in [*_prompts(old), *_custom_rows(old, new)]:
        new.settings.setdefault(name, (value, comment))
    new.differs |= {f"({i})": note for i, note in enumerate(old.notes, start=1)}
    return new


def _is_old(key: str) -> bool:
    return key in RENAMED or key in GONE or ((row := find(key)) is not None and row.section is None)


def _take(new: Migrated, key: str, old: OldRunFile) -> None:
    """Add what a key of the file means."""
    if key == "output_dir":
        return
    value = old.values[key]
    if isinstance(value, str) and "${" in value and key not in GONE:
        new.dropped[key] = f"refers to what is not known here: {value}"
        return
    meaning = meaning_of(key, old.values, stage=new.stage)
    if meaning.differs:
        new.differs[key] = meaning.note or "cannot be had here"
    elif meaning.note and not meaning.settings:
        new.dropped[key] = meaning.note
    for name, setting in meaning.settings.items():
        is_same = name.rpartition(".")[2] == key and setting == value
        new.settings.setdefault(name, (setting, "" if is_same else f"was {key}: {_short(value)}"))
    if meaning.settings and meaning.note and not meaning.differs:
        new.notes[key] = meaning.note


def _inherit(new: Migrated, key: str, old: OldRunFile, preset: Config) -> None:
    """Add what a key means that only the file's groups set, where our run file says something else."""
    value = old.values[key]
    if value is None or (isinstance(value, str) and "${" in value):
        return
    meaning = meaning_of(key, old.values, stage=new.stage)
    if meaning.differs:
        new.differs[key] = f"{meaning.note} (set by its groups)"
    for name, setting in meaning.settings.items():
        if name not in new.settings and setting != _of(preset, name):
            is_same = name.rpartition(".")[2] == key and setting == value
            new.settings[name] = (
                setting,
                "of its groups" if is_same else f"of its groups, {key}: {_short(value)}",
            )


def _of(config: Config, name: str) -> Any:
    section, _, leaf = name.rpartition(".")
    return config.trainer_args.get(leaf) if section == "trainer_args" else get(config, name)


def _output_dir(old: OldRunFile) -> tuple[str, str]:
    """Return the run directory, without parts that are a date or the name of a log."""
    raw = str(old.values.get("output_dir") or "")
    parts = [part for part in raw.split("/") if "${" not in part]
    whole = "output_dir" in old.typed and len(parts) > 1
    results = str(old.values.get("results_dir") or "results")
    path = "/".join(parts) if whole else f"{results}/{old.path.stem}"
    path = re.sub(rf"^{re.escape(results)}/", "${results_dir}/", path)
    was_dated = whole and len(parts) < len(raw.split("/"))
    return path, "without its date: a run directory is one run's" if was_dated else ""


def _prompts(old: OldRunFile) -> Iterator[tuple[str, Any, str]]:
    """Yield the prompts that the original program took, whatever the data."""
    folder = old.path.resolve().parents[2] if len(old.path.resolve().parents) > 2 else old.path.resolve()
    if old.stage != "student_sft":
        try:
            read_teacher_prompt(str(folder))
            yield (
                "layout.teacher_prompt",
                f"original:{folder}",
                "the released prompt; the default here is `default`",
            )
        except ConfigError:
            pass  # the file is in no checkout: the header says how the prompt is taken
    if old.stage != "teacher_sft" and old.values.get("dataset_id_or_path") != STRATOS:
        yield "layout.student_prompt", f"from_dataset:{STRATOS}", "what it sent to the student with all data"


def _custom_rows(old: OldRunFile, new: Migrated) -> Iterator[tuple[str, Any, str]]:
    """Yield how rows other than the released ones are read."""
    if old.stage == "teacher_sft" and old.values.get("dataset_id_or_path") not in (STRATOS, None):
        yield "data.missing_trace", "solution", "its default for rows without reasoning_trace"
    source, _ = new.settings.get("dataset_id_or_path", (None, ""))
    if source not in (None, STRATOS):
        new.dropped["columns"] = (
            "are question, solution and reasoning_trace here; where yours has `prompt`, add data.columns="
            "{question: prompt}"
        )


def _short(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = " ".join(text.split())  # it is part of a comment
    return text if len(text) <= 40 else f"{text[:37]}..."


def not_in_checkout(new: Migrated) -> bool:
    """Return whether the released teacher prompt would have been used, and is not at hand."""
    return new.stage != "student_sft" and "layout.teacher_prompt" not in new.settings


def run_folder(path: Path) -> bool:
    """Return whether a file is where a run file must be."""
    return path.resolve().parent.name == "run_cfg"
