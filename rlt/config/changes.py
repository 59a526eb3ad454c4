"""In which settings two configurations differ that shape a result: not where and by what a run is made."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rlt.config.resolve import input_paths
from rlt.config.schema import Config, stage_of
from rlt.config.tree import get, rows

_PLACES = {
    *("results_dir", "output_dir", "resume_from", "report_to", "wandb_project"),
    *("generation.servers", "generation.sync_dir", "generation.host", "generation.base_port"),
    *("generation.allow_open_servers", "generation.api_key_file"),
    *("generation.request_timeout", "generation.sync_timeout"),
    *("generation.startup_timeout", "generation.gpu_memory_utilization", "generation.server_args"),
    *("generation.max_restarts", "generation.silence_timeout"),
    *("trainer.max_hours", "trainer.save_on_sigterm", "trainer.hang_timeout"),
    *("collect.requests_per_server", "evaluate.requests_per_server"),
    *("reward.servers", "reward.answers.servers"),
    *("hardware.gpu", "hardware.mean_prompt_tokens", "hardware.mean_completion_tokens"),
}
"""Settings of where and by what a run is made, which do not shape its result."""


def changed_settings(old: Config, new: Config) -> list[str]:
    """Return which settings that shape a result differ, a few words each; both are resolved.

    Those that the new one's stage does not read shape none, whatever an older file holds of them.
    """
    before, after, stage = _settings(old), _settings(new), stage_of(new)
    return [
        f"{name} was {_short(before[name])} and is {_short(after[name])}"
        for name in after
        if stage.reads(name) and before[name] != after[name]
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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = repr(text) if text == "" else text
    return text if len(text) <= 60 else f"{text[:57]}…"
