"""What the files of a folder depend on: only the same inputs, models and settings may continue in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlt.errors import CheckpointError
from rlt.io import write_text

NAME = "manifest.json"
Manifest = Mapping[str, Any]
"""Settings and digests by name, in the order in which a difference is named."""


def open_manifest(directory: Path, manifest: Manifest, what: str) -> None:
    """Write a folder's manifest; raises CheckpointError where another one is there already.

    `what` is what the folder holds, for the message. It names the first difference in the manifest's order.
    """
    path = directory / NAME
    if not path.is_file():
        write_text(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        return
    remedy = f"give another output_dir, or remove {directory}"
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): {remedy}") from error
    new = json.loads(json.dumps(manifest))
    different = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    if different:
        key = different[0]
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise CheckpointError(
            f"{directory} holds {what} of another run ({key} was {_short(old.get(key))} and is "
            f"{_short(new.get(key))}{more}): {remedy}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
