"""The names and shapes of the tensors in a model's safetensors files, without reading the tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from rlt.config.weight_files import read_head
from rlt.errors import ModelError

Shape = tuple[int, ...]


def checkpoint_tensors(name: str, revision: str | None = None) -> dict[str, Shape] | None:
    """Return the shape of each tensor of a folder or a Hub name; None where its weights are no safetensors.

    Raises ModelError for files that cannot be read.
    """
    files = list(_files(name, revision))
    try:
        heads = [read_head(file)[0] for file in files]
        shapes = {key: tuple(entry["shape"]) for head in heads for key, entry in head.items()}
        return shapes if files else None
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the safetensors files of {name!r} cannot be read ({error}); copy it again"
        ) from error


def _files(name: str, revision: str | None) -> Iterator[Path]:
    if (index := _cached(name, SAFE_WEIGHTS_INDEX_NAME, revision)) is not None:
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{index} cannot be read ({error}); copy {name!r} again") from error
        for shard in sorted(shards):
            if (file := _cached(name, shard, revision)) is None:
                raise ModelError(f"{name!r} has no {shard}, which its {index.name} names; copy it again")
            yield file
    elif (file := _cached(name, SAFE_WEIGHTS_NAME, revision)) is not None:
        yield file


def _cached(name: str, file: str, revision: str | None) -> Path | None:
    found = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)
