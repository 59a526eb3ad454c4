"""Checks of the paths in a configuration: models, data, checkpoints, the run directory.

Names that could be the Hub's are left alone: whether those exist is found out when they are loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rlt.config.checkpoints import LAST_FILE, is_whole, last_whole
from rlt.config.judges import reads_student_model
from rlt.config.schema import DATA_SUFFIXES, DATASET_PROMPT, PACKED_SUFFIXES, Config, stage_of
from rlt.config.weight_files import check_weights
from rlt.errors import ConfigError
from rlt.io import hub_file

LAYOUT_FILE = "rlt_layout.json"
"""Beside a model's weights: the tags and prompts that it was trained with (rlt/data/model_layout.py)."""
_EARLIER = {
    "teacher_rl": ("pre_rl_model", "teacher_sft", "the warm-up"),
    "collect_traces": ("teacher_rl", "teacher_rl", "teacher_rl"),
    "evaluate": ("student_sft", "student_sft", "student_sft"),
    "student_rl": ("student_sft", "student_sft", "student_sft"),
    "student_opd": ("student_sft", "student_sft", "student_sft"),
}
"""By stage: the folder of its default model, the run file that writes it, and how that is called."""
_MAKERS = {"results/quickstart": "./scripts/quickstart.sh", "results/claims": "python -m rlt claims"}
"""By the folder of a toy world's seeds: the command that makes what its run files read."""
_HUB_NAME = re.compile(r"(\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)


def check_files(config: Config) -> None:
    """Raise ConfigError for the first path that is not what its setting needs."""
    stage, models = stage_of(config), models_of(config)
    _check_default_model(config)
    _check_made(config)
    needed = ("config.json", "tokenizer.json") if stage.reads_text_alone else ("config.json",)
    for setting, model in models.items():
        check_model(setting, model, needed)
        if not stage.reads_text_alone:
            check_weights(setting, model, needed=_loads_weights(config, setting))
    for setting, path in _data_of(config):
        _check_data(setting, path)
    _check_output(config.output_dir)
    for setting, model in models.items():
        _keep_apart(config.output_dir, setting, model)
    if stage.trains:
        _check_resume(config)


def _data_of(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the data that a stage reads, by its settings."""
    stage = stage_of(config)
    yield "dataset_id_or_path", config.dataset_id_or_path
    if stage.reads("evaluate.paths"):
        yield from ((f"evaluate.paths.{task}", path) for task, path in config.evaluate.paths.items())
    if stage.reads("traces.more"):
        yield from (("traces.more", more) for more in config.traces.more)
    if stage.reads("evaluation.path") and config.evaluation.path is not None:
        yield "evaluation.path", config.evaluation.path


def models_of(config: Config) -> dict[str, str]:
    """Return the models that a stage reads, by their settings."""
    stage = stage_of(config)
    models = {}
    if stage.reads("model_name_or_path") and config.model_name_or_path:
        models["model_name_or_path"] = config.model_name_or_path
    if reads_student_model(config) and config.student_model:
        models["student_model"] = config.student_model
    if stage.is_judged and config.opd.teacher == "model" and config.teacher_model:
        models["teacher_model"] = config.teacher_model
    if stage.reads("reward.students"):
        models |= {f"reward.students.{s.name}.model": s.model for s in config.reward.students}
    return models


def reads(config: Config) -> list[str]:
    """Return the models and data of a stage, on this machine or on the Hub."""
    data = (
        path for setting, path in _data_of(config) if setting in ("dataset_id_or_path", "evaluation.path")
    )
    prompts = student_prompts(config)
    named = [p.removeprefix(DATASET_PROMPT) for p in prompts if p.startswith(DATASET_PROMPT)]
    return [*models_of(config).values(), *data, *named]


def student_prompts(config: Config) -> list[str]:
    """Return the students' prompts that a stage reads, as they are set."""
    stage = stage_of(config)
    first = [config.layout.student_prompt] if stage.reads("layout.student_prompt") else []
    others = config.reward.students if stage.reads("reward.students") else []
    return [*first, *(student.prompt for student in others if student.prompt)]


def prompt_is_here(prompt: str | None) -> bool:
    """Whether a student's prompt can be read on this machine: it is not that of a dataset on the Hub."""
    if prompt is None or not prompt.startswith(DATASET_PROMPT):
        return True
    return is_here(prompt.removeprefix(DATASET_PROMPT))


def is_here(name: str | None) -> bool:
    """Whether a dry run looks into a model or a dataset: a path, or a model in the Hub's cache."""
    if name is None:
        return False
    return Path(name).exists() or all(hub_file(name, file) for file in ("config.json", "tokenizer.json"))


def _loads_weights(config: Config, setting: str) -> bool:
    """Whether the model of a setting is loaded from here, and not by a server of somebody else's."""
    if setting == "teacher_model":
        return config.opd.placement != "server"
    if setting != "model_name_or_path":
        return config.reward.placement != "server"
    stage = stage_of(config)
    return not stage.generates or stage.trains or not config.generation.servers


def context_length(model: str) -> int | None:
    """Return max_position_embeddings of a model in a local folder, or None where it cannot be known."""
    path = Path(model) / "config.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON, so {model} is not a usable model: {error}.") from None
    inner = values.get("text_config") or {} if isinstance(values, dict) else None
    if not isinstance(inner, dict):
        raise ConfigError(
            f"{path} must hold a JSON object, a model's configuration, so {model} is not a usable model."
        )
    limit = values.get("max_position_embeddings", inner.get("max_position_embeddings"))
    return limit if isinstance(limit, int) else None


def sequence_length(config: Config) -> int | None:
    """Return the tokens that prompt and completion may have together, None where the model's context decides.

    An evaluation goes to the end of the context: what is asked for is more than many a model has.
    """
    need = config.max_prompt_length + config.max_completion_length
    if not stage_of(config).fills_context:
        return need
    context = context_length(config.model_name_or_path) if config.model_name_or_path else None
    return None if context is None else min(need, context)


def data_suffix(name: str | Path) -> str:
    """Return the suffix that says how a data file is read: `.jsonl` of `a.jsonl` and of `a.jsonl.gz`."""
    path = Path(str(name).lower())
    return Path(path.stem).suffix if path.suffix in PACKED_SUFFIXES else path.suffix


def looks_local(name: str) -> bool:
    """Return whether a name means a path on this machine and cannot be a Hub name (`owner/name`)."""
    path = Path(name)
    return (
        name.startswith((".", "~", "/"))
        or name.count("/") > 1
        or data_suffix(path) in DATA_SUFFIXES
        or ("/" in name and path.parent.is_dir())
    )


def _check_default_model(config: Config) -> None:
    """Refuse a default model that the stage before has not written."""
    name, run_file, what = _EARLIER.get(config.stage, ("", "", ""))
    model = f"{config.results_dir}/{name}"
    if name and config.model_name_or_path == model and not (Path(model) / "config.json").is_file():
        command = _maker(config) or (
            f"./launch.sh cfgs/run_cfg/{run_file}.yaml results_dir={config.results_dir}"
        )
        raise ConfigError(
            f"`model_name_or_path={model}` does not hold a model yet: {config.stage} starts from what "
            f"{what} writes, so run `{command}` first, or give another model_name_or_path."
        )


def _check_made(config: Config) -> None:
    """Refuse what a stage reads of a toy world that nothing has made yet."""
    maker, folder = _maker(config), Path(config.results_dir)
    if maker is None or folder.exists():
        return
    for setting, path in {**models_of(config), **dict(_data_of(config))}.items():
        if folder in Path(path).parents:
            raise ConfigError(
                f"`{setting}={path}` does not exist yet: run `{maker}` first, which makes it, or give "
                "another results_dir."
            )


def _maker(config: Config) -> str | None:
    """Return the command that makes everything in results_dir, where that is a toy world's."""
    return _MAKERS.get(str(Path(config.results_dir).parent))


def check_model(setting: str, model: str, needed: tuple[str, ...] = ("config.json",)) -> None:
    """Raise ConfigError for a name that can be neither a model's folder nor a Hub name."""
    path = Path(model)
    if path.is_file():
        raise ConfigError(f"`{setting}={model}` is a file: give a model's folder or a Hub name (owner/name).")
    if path.is_dir() and not any((path / name).is_file() for name in needed):
        raise ConfigError(
            f"`{setting}={model}` is a folder without {' or '.join(needed)}: give a model's folder."
        )
    _check_name(setting, model, "a model's folder")


def _check_data(setting: str, name: str) -> None:
    suffix = data_suffix(name)
    if Path(name).is_file() and suffix not in DATA_SUFFIXES:
        raise ConfigError(
            f"`{setting}={name}` must end in one of {', '.join(DATA_SUFFIXES)}, got "
            f"{suffix or 'no suffix'}: write the rows as one of these."
        )
    _check_name(setting, name, "a json, jsonl, parquet or csv file, a dataset folder,")


def _check_name(setting: str, name: str, what: str) -> None:
    """Refuse what neither exists here nor can be a name on the Hub."""
    if Path(name).exists():
        return
    if looks_local(name):
        raise ConfigError(f"`{setting}={name}` does not exist: give {what} or a Hub name (owner/name).")
    if not _HUB_NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise ConfigError(
            f"`{setting}={name}` does not exist, and no Hub name looks like this: give {what} or a Hub name "
            "(owner/name)."
        )


def _check_output(output_dir: str) -> None:
    path = Path(output_dir)
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ConfigError(f"`output_dir={output_dir}` cannot be a folder: {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"`output_dir={output_dir}` cannot be written: no permission in {existing}.")


def _keep_apart(output_dir: str, setting: str, model: str) -> None:
    """Refuse a run directory in, above or at a model's folder: the run would write over the model."""
    run, folder = Path(output_dir).resolve(), Path(model).resolve()
    if run == folder or (folder.is_dir() and (run in folder.parents or folder in run.parents)):
        place = "is" if run == folder else "contains" if run in folder.parents else "lies in"
        raise ConfigError(
            f"`output_dir={output_dir}` {place} the folder of {setting}={model}, which the run would "
            "overwrite: give another folder."
        )


def has_checkpoint(directory: str) -> bool:
    """Whether a run directory holds a whole checkpoint."""
    return last_whole(Path(directory)) is not None


def _check_resume(config: Config) -> None:
    if config.resume_from is None:
        return
    if config.resume_from == "latest":
        if not has_checkpoint(config.output_dir):
            raise ConfigError(
                f"`resume_from=latest` finds no whole checkpoint-N in {config.output_dir}: remove it to "
                "start afresh."
            )
    elif not Path(config.resume_from).is_dir():
        raise ConfigError(
            f"`resume_from={config.resume_from}` is not a folder: give a checkpoint-N folder, or latest for "
            "the newest in output_dir."
        )
    elif not is_whole(Path(config.resume_from)):
        raise ConfigError(
            f"`resume_from={config.resume_from}` is no whole checkpoint, because {LAST_FILE} is "
            "missing: give another checkpoint-N folder, or latest for the newest whole one in output_dir."
        )
    elif Path(config.resume_from).resolve().parent != Path(config.output_dir).resolve():
        raise ConfigError(
            f"`resume_from={config.resume_from}` lies outside of output_dir={config.output_dir}, and a "
            "checkpoint's optimizer and RNG files can run code when they are read: resume in its own run "
            "directory, or start a new run with it as model_name_or_path."
        )
