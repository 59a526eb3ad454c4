"""Whether a run directory holds what a step would make: its settings, the content of what it read, the code.

Everything is read from what the run itself left: config.yaml and run.json. So a stage that was run by hand
into the step's directory counts, too. Where a run was made, and on which devices and processes, does not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlt.config.resolve import input_paths
from rlt.config.save import load_config
from rlt.config.schema import Config
from rlt.config.tree import get, rows
from rlt.errors import ConfigError
from rlt.reporting.inputs import describe_input
from rlt.reporting.run_record import source_digest

SAVED_CONFIG = "config.yaml"
_PLACES = {
    *("results_dir", "output_dir", "resume_from", "report_to", "wandb_project"),
    *("generation.servers", "generation.sync_dir", "generation.host", "generation.base_port"),
    *("generation.allow_open_servers", "generation.api_key_file"),
    *("generation.request_timeout", "generation.sync_timeout"),
    *("generation.startup_timeout", "generation.gpu_memory_utilization", "generation.server_args"),
    *("generation.max_restarts", "trainer.max_hours", "trainer.save_on_sigterm"),
    *("collect.requests_per_server", "evaluate.requests_per_server"),
    *("reward.servers", "reward.answers.servers"),
    *("hardware.gpu", "hardware.mean_prompt_tokens", "hardware.mean_completion_tokens"),
}
"""Settings of where and by what a run is made, which do not shape its result."""


def changes(directory: Path, run: Mapping[str, Any], config: Config, *, ignore_code: bool) -> list[str]:
    """Return what differs between the run of a directory and a step, a few words each; none if it stands.

    `run` is the directory's run.json; `config` is the step's, resolved.
    """
    try:
        old = load_config(directory / SAVED_CONFIG)
    except ConfigError as error:
        return [str(error).rstrip(".")]
    found = [] if run.get("stage") == config.stage else [f"stage was {run.get('stage')}"]
    found += _changed_settings(old, config) + _changed_inputs(run.get("inputs", {}), old, config)
    if not ignore_code and run.get("code", {}).get("sha256") != source_digest():
        found.append("the code is another one (pipeline.ignore_code=true lets it pass)")
    return found


def _changed_settings(old: Config, new: Config) -> list[str]:
    before, after = _settings(old), _settings(new)
    return [
        f"{name} was {_short(before[name])} and is {_short(after[name])}"
        for name in after
        if before[name] != after[name]
    ]


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that shape a result; those that name an input keep only that they do."""
    values = {row.name: get(config, row.name) for row in rows().values() if row.section is None}
    values["reward.students"] = [
        {**dataclasses.asdict(student), "model": None} for student in config.reward.students
    ]
    for name in input_paths(config):
        if name in values:
            values[name] = "a path"
    values["traces.more"] = len(config.traces.more)
    return {name: value for name, value in values.items() if name not in _PLACES}


def _changed_inputs(recorded: Mapping[str, Mapping[str, Any]], old: Config, new: Config) -> list[str]:
    """Return the inputs whose content differs; what the old run did not read has no content to compare."""
    by_place = {_place(described): described for described in recorded.values()}
    before, found = input_paths(old), []
    for name, path in input_paths(new).items():
        described = by_place.get(before.get(name, ""))
        if described is None:
            continue
        # The revision of a Hub name is a setting of its own, and compared as one.
        now = describe_input((path, described.get("revision")))
        if not _same(described, now):
            found.append(f"{name} was {_label(described)} and is {_label(now)}")
    return found


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if "sha256" in old or "sha256" in new:
        return old.get("sha256") == new.get("sha256")
    commits = {old.get("commit"), new.get("commit")} - {None}
    return old["hub"] == new["hub"] and len(commits) < 2


def _place(described: Mapping[str, Any]) -> str:
    return str(described.get("file") or described.get("folder") or described.get("hub"))


def _label(described: Mapping[str, Any]) -> str:
    version = described.get("sha256") or described.get("commit")
    return f"{_place(described)} ({version[:12]})" if version else _place(described)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = repr(text) if text == "" else text
    return text if len(text) <= 60 else f"{text[:57]}…"
