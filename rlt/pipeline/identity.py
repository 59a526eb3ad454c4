"""Whether a run directory holds what a step would make: its settings, the content of what it read, the code.

Everything is read from what the run itself left: config.yaml and run.json. So a stage that was run by hand
into the step's directory counts, too. Where a run was made, and on which devices and processes, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlt.config.changes import changed_settings
from rlt.config.resolve import input_paths
from rlt.config.save import load_config
from rlt.config.schema import Config
from rlt.errors import ConfigError
from rlt.io import Input, describe_input
from rlt.rundir.run_json import RunJson
from rlt.rundir.run_record import source_digest

SAVED_CONFIG = "config.yaml"


def changes(directory: Path, run: RunJson, config: Config, *, ignore_code: bool) -> list[str]:
    """Return what differs between the run of a directory and a step, a few words each; none if nothing does.

    `run` is the directory's run.json; `config` is the step's, resolved.
    """
    try:
        old = load_config(directory / SAVED_CONFIG)
    except ConfigError as error:
        return [str(error).rstrip(".")]
    found = [] if run.get("stage") == config.stage else [f"stage was {run.get('stage')}"]
    found += changed_settings(old, config) + _changed_inputs(run.get("inputs", {}), old, config)
    if not ignore_code and run.get("code", {}).get("sha256") != source_digest():
        found.append("the code is another one (pipeline.ignore_code=true lets it pass)")
    return found


def _changed_inputs(recorded: Mapping[str, Input], old: Config, new: Config) -> list[str]:
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


def _same(old: Input, new: Input) -> bool:
    if "sha256" in old or "sha256" in new:
        return old.get("sha256") == new.get("sha256")
    commits = {old.get("commit"), new.get("commit")} - {None}
    return old["hub"] == new["hub"] and len(commits) < 2


def _place(described: Input) -> str:
    return str(described.get("file") or described.get("folder") or described.get("hub"))


def _label(described: Input) -> str:
    version = described.get("sha256") or described.get("commit")
    return f"{_place(described)} ({version[:12]})" if version else _place(described)
