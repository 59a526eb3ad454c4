"""What a training comes from: kept in each of its checkpoints, compared before it continues from one.

Data, model, students, kind of reference, shape of adapters, tags and prompts must be what they were, since
the rest of a run would belong to another experiment. Other versions and held-out data are logged;
settings are compared by config/changes.py. Tags and prompts of the model are in the checkpoint's
rlt_layout.json; in checkpoints from before that file, here. A checkpoint from before this file is compared
by run.json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlt.config.checkpoints import named_checkpoint
from rlt.config.schema import Config, stage_of
from rlt.config.students import FIRST, frozen_students
from rlt.data.model_layout import ModelLayout, read_layout
from rlt.data.own_layout import prompt_text
from rlt.data.owners import STUDENT, TEACHER
from rlt.data.prompts import FROM_DATASET
from rlt.errors import CheckpointError, DataError
from rlt.io import describe_input, input_label, write_json
from rlt.rundir.run_record import Source, code_version, library_versions, read_run

logger = logging.getLogger(__name__)
NAME = "origin.json"
ROW_ORDER = "row_order"
"""The key of run.json and of this file."""
DATASET, ROWS_LEFT = "of the dataset", "of the rows that are left"
"""What the permutation of an epoch is over: see trainers/order.py. Older runs have the second."""
_LOGGED = ("held_out",)
"""Inputs that may change: nothing is trained on them."""


def fixed_traits(config: Config) -> dict[str, Any]:
    """Return what must not change in a run besides its inputs and its model's layout, as JSON can hold it."""
    lora, trainer = config.model.lora, config.trainer
    shape = {"rank": lora.rank, "alpha": lora.alpha, "target_modules": sorted(lora.target_modules)}
    traits = {"stage": config.stage, "LoRA": shape if lora.rank else "off"}
    stage = stage_of(config)
    if stage.is_rl and trainer.beta:
        traits["reference"] = "moving" if trainer.ref_sync_steps else "fixed"
    if stage.is_judged:
        traits["teacher"] = config.opd.teacher
    if stage.scores and stage.trains:
        for student in config.reward.students:
            setting = f"reward.students.{student.name}.prompt"
            traits[f"{student.name} prompt"] = prompt_text(config, setting) or FROM_DATASET
    return traits


def layout_traits(config: Config) -> dict[str, str]:
    """Return the tags and prompts of a training, as a checkpoint's rlt_layout.json has them."""
    traits = {"tags": config.layout.tags, "template switches": _switches(config.layout.chat_template_kwargs)}
    for name, setting in (("teacher prompt", TEACHER), ("student prompt", STUDENT)):
        if stage_of(config).reads(setting):
            text = prompt_text(config, setting)
            traits[name] = FROM_DATASET if text is None else text
    return traits


def _switches(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _stored_traits(layout: ModelLayout, now: dict[str, str]) -> dict[str, str]:
    """Return the same of a checkpoint; a text that all its rows had may be typed now."""
    before = {"tags": layout.tags}
    if layout.chat_template_kwargs is not None:
        before["template switches"] = _switches(layout.chat_template_kwargs)
    if layout.teacher_prompt is not None:
        before["teacher prompt"] = layout.teacher_prompt
    is_of_rows = layout.student_prompt_from_dataset
    if is_of_rows and now.get("student prompt") != layout.student_prompt:
        before["student prompt"] = FROM_DATASET
    elif layout.student_prompt is not None:
        before["student prompt"] = layout.student_prompt
    return before


def sources(config: Config) -> dict[str, Source]:
    """Return what a training reads, by the roles of run.json."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    found: dict[str, Source | None] = {
        "model": (config.model_name_or_path, config.model.revision),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.evaluation.path,
    }
    for student in frozen_students(config):
        found["student" if student.name == FIRST else f"student {student.name}"] = student.model
    if stage_of(config).is_judged and config.opd.teacher == "model":
        found["teacher"] = config.teacher_model
    return {role: source for role, source in found.items() if source}


def write_origin(config: Config, checkpoint: Path) -> None:
    """Write into a checkpoint what it comes from, as the run.json of its run has it."""
    run = read_run(config.output_dir)
    inputs = {role: run["inputs"][role] for role in sources(config) if role in run["inputs"]}
    for role, described in inputs.items():
        if described.get("hub") and not described.get("commit"):  # known since it was downloaded
            inputs[role] = describe_input((described["hub"], described["revision"]))
    facts = {"traits": fixed_traits(config), "inputs": inputs, ROW_ORDER: run.get(ROW_ORDER)}
    write_json(checkpoint / NAME, {**facts, "versions": run["versions"], "code": run["code"]})


def row_order(checkpoint: Path | None) -> str:
    """Return in which order a run takes its rows: DATASET, unless it began when that was not yet done."""
    if checkpoint is None:
        return DATASET
    return (_origin(checkpoint) or {}).get(ROW_ORDER) or ROWS_LEFT


def require_same_origin(config: Config) -> None:
    """Raise CheckpointError where a run would continue as another one; log other differences."""
    if not stage_of(config).trains:
        return
    checkpoint = named_checkpoint(config.resume_from, Path(config.output_dir))
    if checkpoint is None:
        return
    before = _origin(checkpoint)
    if before is None:
        logger.warning(
            "%s does not say what it was trained from, so model and data are not compared", checkpoint
        )
        return
    now = {role: describe_input(source) for role, source in sources(config).items()}
    changed, noted = _changed_inputs(before["inputs"], now)
    layout, ours = read_layout(checkpoint), layout_traits(config)
    traits = fixed_traits(config) | ours
    was = before.get("traits", {}) | ({} if layout is None else _stored_traits(layout, ours))
    if layout is None and traits.get("student prompt") == "":
        traits["student prompt"] = FROM_DATASET  # which earlier checkpoints recorded for both
    for name in traits.keys() & was.keys():
        if traits[name] != was[name]:
            changed.append(f"{name} ({_short(was[name])}, now {_short(traits[name])})")
    if changed:
        raise CheckpointError(
            f"the run cannot continue from {checkpoint}, because what it is made of has changed: "
            f"{', '.join(sorted(changed))}; give what it had before, or start a new run without resume_from "
            "in another output_dir"
        )
    noted += _changed_versions(before)
    if noted:
        logger.warning("the run continues, with what differs from before: %s", "; ".join(noted))


def _origin(checkpoint: Path) -> dict[str, Any] | None:
    """Return what a checkpoint comes from, by its own file or by the run.json beside it."""
    path = checkpoint / NAME
    try:
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found["inputs"], dict) else None
        found = read_run(checkpoint.parent)
        return {**found, "traits": {"stage": found["stage"]}} if "inputs" in found else None
    except DataError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not say what the checkpoint comes from ({error!r}); remove it to continue "
            "without a comparison"
        ) from error


def _changed_inputs(before: dict[str, Any], now: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return which inputs differ: those that must not, and those that are only logged."""
    changed: list[str] = []
    noted: list[str] = []
    for role in sorted(before.keys() | now.keys()):
        if role not in now and not role.startswith(("student", *_LOGGED)):
            continue  # a benchmark, say
        old, new = before.get(role), now.get(role)
        if old is None or new is None or not _is_same(old, new):
            words = (
                f"{role} ({input_label(old) if old else 'none'}, now {input_label(new) if new else 'none'})"
            )
            (noted if role in _LOGGED else changed).append(words)
    return changed, noted


def _is_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two inputs hold the same, wherever they lie; of the Hub a commit that is not known is not held
    against it."""
    if old.get("sha256") or new.get("sha256"):
        return old.get("sha256") == new.get("sha256")
    if old.get("hub") != new.get("hub"):
        return False
    if old.get("commit") and new.get("commit"):
        return old["commit"] == new["commit"]
    return old.get("revision") == new.get("revision")


def _changed_versions(before: dict[str, Any]) -> list[str]:
    old, new = before.get("versions", {}), library_versions()
    noted = [
        f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if before.get("code", {}).get("sha256") not in (None, code_version()["sha256"]):
        noted.append("the program's own code has changed")
    return noted


def _short(trait: Any) -> str:
    text = trait if isinstance(trait, str) else ", ".join(f"{name} {value}" for name, value in trait.items())
    text = " ".join(text.split()) or "none"
    return text if len(text) <= 60 else f"{text[:57]}…"
