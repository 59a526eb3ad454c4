"""Files written so that a reader never sees half of one, and content hashes of what a run read.

A file is written beside its place under a temporary name and renamed. An older run's file is set aside
under a number, never overwritten.

The hash of a file is its sha256. That of a folder: sha256 over sorted (name, size, digest of each file), and
a file above 64 MiB is sampled (128 evenly spread blocks of 64 KiB), so that a model of many gigabytes takes a
second; any training step changes every tensor, so the sample sees it. Of a model folder only the model's own
files at the top count, not checkpoints, reports or hidden files. A Hub name: the revision asked for, and the
commit that the local cache holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

LARGE = 64 * 2**20
_BLOCK = 64 * 2**10
_NUM_BLOCKS = 128
_MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".py")
_RUN_FILES = ("run.json", "origin.json", "trainer_state.json", "all_results.json", "train_results.json")


class Input(TypedDict):
    """What a run has read, with what names its content.

    A file has `file, bytes, sha256`, a folder `folder, files, bytes, sha256`, a name on the Hub
    `hub, revision, commit`; no record has all of the keys.
    """

    file: str
    folder: str
    hub: str
    revision: str | None
    """Of the Hub, as it was asked for."""
    commit: str | None
    """Of the Hub, as the local cache holds it."""
    files: int
    """In a folder."""
    bytes: int
    sha256: str


NO_INPUT = cast(Input, {})
"""Of a run that has not recorded one."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Return `path`, written by `write` under a temporary name in the same folder and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a write that fails names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Return `path`, holding `text` as UTF-8; a lone surrogate is written as a question mark."""
    data = text.encode("utf-8", errors="replace")
    return write_atomically(path, lambda temporary: temporary.write_bytes(data))


def set_aside(path: Path) -> Path | None:
    """Return the new place of an existing file or folder: the first free of `NAME.1`, `NAME.2`, …"""
    if not path.exists():
        return None
    number = 1
    while (place := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(place)
    return place


def to_json(value: Any) -> tuple[Any, bool]:
    """Return the value as JSON can hold it, and whether it is a number that JSON cannot hold.

    NaN and infinity become None: no reader may take them for a number.
    """
    if hasattr(value, "item") and getattr(value, "size", None) != 0 and not isinstance(value, str):
        try:
            value = value.item()  # a zero-dimensional tensor or a numpy scalar
        except (RuntimeError, ValueError):  # more than one element
            return str(value), False
    if isinstance(value, float):
        return (value, False) if math.isfinite(value) else (None, True)
    if value is None or isinstance(value, bool | int | str):
        return value, False
    return str(value), False


def json_tree(value: Any) -> Any:
    """Return nested dicts and lists with every leaf as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): json_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_tree(item) for item in value]
    return to_json(value)[0]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Return `path`, holding one line of JSON per row; a lone surrogate is written as a question mark."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="replace") as file:
            for row in rows:
                file.write(json.dumps(json_tree(row), ensure_ascii=False, allow_nan=False) + "\n")

    return write_atomically(path, write)


def write_json(path: Path, value: Any) -> Path:
    """Return `path`, holding the value as indented JSON."""
    return write_text(
        path, json.dumps(json_tree(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_tail(path: Path, num_bytes: int | None = None) -> str:
    """Return the last whole lines of a file, or all of it; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = 0 if num_bytes is None else max(0, size - num_bytes)
            file.seek(start)
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text.partition("\n")[2] if start else text


def describe_input(source: str | tuple[str, str | None]) -> Input:
    """Return kind, place and content hash of a file, a folder, or a Hub name (with a revision as a pair)."""
    name, revision = source if isinstance(source, tuple) else (source, None)
    path = Path(name)
    if path.is_file():
        return cast(Input, {"file": name, "bytes": path.stat().st_size, "sha256": file_digest(path)})
    if path.is_dir():
        files = folder_files(path)
        total = hashlib.sha256()
        for file in files:
            size = file.stat().st_size
            digest = sampled_digest(file) if size > LARGE else file_digest(file)
            total.update(f"{file.relative_to(path).as_posix()}\0{size}\0{digest}\n".encode())
        size = sum(f.stat().st_size for f in files)
        return cast(Input, {"folder": name, "files": len(files), "bytes": size, "sha256": total.hexdigest()})
    return cast(Input, {"hub": name, "revision": revision, "commit": hub_commit(name, revision)})


def input_label(described: Input) -> str:
    """Return an input in one word without a path: NAME@COMMIT on the Hub, or NAME@sha256:DIGITS here."""
    if name := described.get("hub"):
        version = described.get("commit") or described.get("revision")
        return f"{name}@{version[:12]}" if version else str(name)
    place = Path(str(described.get("folder") or described.get("file"))).resolve()
    return f"{place.name}@sha256:{str(described.get('sha256'))[:12]}"


def folder_files(folder: Path) -> list[Path]:
    """Return the files that make up a folder's content, sorted by name."""
    if (folder / "config.json").is_file():
        found = [
            f
            for f in folder.iterdir()
            if f.suffix in _MODEL_SUFFIXES and f.name not in _RUN_FILES and not f.name.startswith(".")
        ]
    else:
        found = [
            f
            for f in files_below(folder)
            if not any(part.startswith(".") for part in f.relative_to(folder).parts)
        ]
    return sorted((f for f in found if f.is_file()), key=lambda f: f.relative_to(folder).as_posix())


def files_below(folder: Path, *, depth: int | None = None) -> Iterator[Path]:
    """Yield the files below a folder, at most `depth` folders down, passing over what is removed meanwhile.

    A run removes folders while others read it (weights that were sent, old checkpoints): `Path.rglob` ends
    in FileNotFoundError then. With a depth, links to folders are followed, too.
    """
    for place, folders, files in os.walk(folder, followlinks=depth is not None):
        if depth is not None and len(Path(place).relative_to(folder).parts) >= depth:
            folders.clear()
        yield from (Path(place, name) for name in files)


def hub_commit(name: str, revision: str | None) -> str | None:
    """Return the commit that the local Hub cache holds for a name, or None where it holds none."""
    from huggingface_hub.constants import HF_HUB_CACHE

    revision = revision or "main"
    for kind in ("models", "datasets"):
        repo = Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
        reference = repo / "refs" / revision
        if reference.is_file():
            return reference.read_text().strip()
        if (repo / "snapshots" / revision).is_dir():
            return revision
    return None


def hub_file(model: str, name: str, revision: str | None = None) -> Path | None:
    """Return a file of a model in the local Hub cache; None where it is not there, or for what is no name."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, name, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def file_digest(path: Path) -> str:
    """Return the sha256 of a whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sampled_digest(path: Path) -> str:
    """Return the sha256 of evenly spread blocks of a file, the first and the last among them."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        for index in range(_NUM_BLOCKS):
            file.seek(index * max(size - _BLOCK, 0) // (_NUM_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with the names on the way to them, joined by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
