"""Rows of a local file, a local folder or a Hub dataset, as plain dicts with their place in it.

Which columns a row needs is the business of rows.py.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlt.config.files import data_suffix, looks_local
from rlt.data.files import SourceRow, read_csv, read_json, read_jsonl, read_parquet
from rlt.data.folders import datasets_errors, named_splits, warn_of_unread
from rlt.data.kept import KeptRows
from rlt.errors import DataError, first_line

if TYPE_CHECKING:
    import datasets

READERS: dict[str, Callable[[Path], list[SourceRow]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
_BY_LINE = (".jsonl", ".ndjson", ".csv")
HUB_TIMEOUT_SECONDS = 20.0
_SPLIT = "data.split"


@dataclass(frozen=True)
class SourceTable:
    """Everything that was read from one source."""

    source: str
    """Its name, and the split where it has several."""
    unit: str
    """What `SourceRow.number` counts: `line` or `row`."""
    columns: tuple[str, ...]
    rows: list[SourceRow]
    places: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """As in `KeptRows`."""

    def kept(self) -> KeptRows[SourceRow]:
        """Return the rows on their way to a stage: all of them, read or not."""
        items = {row.number: row for row in self.rows}
        numbers = list(items)
        return KeptRows(self.source, self.unit, items, len(numbers), places=self.places, numbers=numbers)


def read_rows(
    source: str, *, split: str = "train", config_name: str | None = None, revision: str | None = None
) -> SourceTable:
    """Return the rows of a .json, .jsonl, .csv or .parquet file, a local folder, or a Hub dataset.

    What exists locally is read locally. A name that looks like a path is never looked up on the Hub.
    `split` chooses among the splits of a folder or a Hub dataset; a file, or one dataset that was saved to
    disk, has none.
    """
    path = Path(source)
    if path.is_file():
        table = _read_file(path, source)
    elif path.is_dir():
        table = _read_folder(path, source, split, config_name)
    elif looks_local(source):
        raise DataError(_no_such_path(path))
    else:
        _check_hub(source, revision)
        table = _read_dataset(source, partial(_load, source, split, config_name, revision))
    if not table.rows:
        raise DataError(f"{source} holds no rows: give at least one, with a question and a solution")
    return table


def _read_file(path: Path, source: str) -> SourceTable:
    suffix = data_suffix(path)
    if suffix not in READERS:
        raise DataError(f"{source} must end in one of {', '.join(READERS)}, got {suffix or 'no suffix'!r}")
    try:
        rows = READERS[suffix](path)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from error
    return SourceTable(source, "line" if suffix in _BY_LINE else "row", _columns(rows), rows)


def _read_folder(path: Path, source: str, split: str, config_name: str | None) -> SourceTable:
    """Return the rows of a folder: a saved dataset, or the files of a split as each is read by itself."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_dataset(source, partial(_load_saved, path, split))
    splits = named_splits(path, config_name)
    _require_split(source, splits, split)
    warn_of_unread(path, splits)
    tables = [_read_file(file, str(file)) for file in splits[split]]
    if len(tables) == 1:
        return tables[0]
    rows: list[SourceRow] = []
    places: dict[int, tuple[str, int]] = {}
    for table in tables:
        for row in table.rows:
            rows.append(replace(row, number=len(rows) + 1))
            places[len(rows)] = table.source, row.number
    unit = "line" if all(table.unit == "line" for table in tables) else "row"
    return SourceTable(f"{source} (split {split})", unit, _columns(rows), rows, places)


def _columns(rows: Iterable[SourceRow]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.values))


def _read_dataset(source: str, load: Callable[[], datasets.Dataset]) -> SourceTable:
    """Return the rows of a dataset; errors of `datasets` become one sentence."""
    with datasets_errors(source):
        dataset = load()
        # Rows leave as plain Python values, whatever format a saved dataset was set to.
        rows = [SourceRow(i, dict(values)) for i, values in enumerate(dataset.with_format(None), start=1)]
    where = f"{source} (split {dataset.split})" if dataset.split else source
    return SourceTable(where, "row", tuple(dataset.column_names), rows)


def _load_saved(path: Path, split: str) -> datasets.Dataset:
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except IndexError as error:  # a dataset without rows is saved without a file
        raise DataError(f"{path} holds no rows") from error
    if isinstance(saved, datasets.Dataset):
        return saved
    _require_split(str(path), list(saved), split)
    return saved[split]


def _load(
    path: str, split: str, config_name: str | None = None, revision: str | None = None
) -> datasets.Dataset:
    """Return one split of a Hub dataset."""
    import datasets

    _require_split(path, datasets.get_dataset_split_names(path, config_name, revision=revision), split)
    loaded = datasets.load_dataset(path, config_name, split=split, revision=revision)
    assert isinstance(loaded, datasets.Dataset), f"a split of {path} is a {type(loaded).__name__}"
    return loaded


def _require_split(source: str, names: Iterable[Any], wanted: str) -> None:
    splits = [str(name) for name in names]
    if wanted not in splits:
        raise DataError(
            f"{source} has no split {wanted!r}, only {', '.join(splits) or 'none'}; set {_SPLIT} to one of "
            "them"
        )


@contextmanager
def held_out_rows() -> Iterator[None]:
    """Name evaluation.split in errors, which held-out rows are read by in place of data.split."""
    try:
        yield
    except DataError as error:
        raise DataError(re.sub(rf"\b{re.escape(_SPLIT)}\b", "evaluation.split", str(error))) from error


def _check_hub(name: str, revision: str | None) -> None:
    """Ask the Hub for the dataset once: loading it would retry for long before saying that it is away."""
    from huggingface_hub import HfApi, errors

    try:
        HfApi().dataset_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
    except errors.OfflineModeIsEnabled:
        return  # a copy in the local cache may still serve
    except errors.HFValidationError as error:
        raise DataError(f"{name!r} is neither a local path nor a possible Hub name") from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"the Hub dataset {name} has no revision {revision!r} (data.revision)") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{name} is neither a local path nor a dataset on the Hub that you may read; "
            "check the spelling, or log in with `hf auth login` if it is private or gated"
        ) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        raise DataError(f"the Hub answered {code} for the dataset {name}; try again later") from error
    except http_error() as error:
        raise DataError(
            f"{name} is no local path, and the Hub cannot be reached ({first_line(error)}); name a local "
            "file or folder, or set HF_HUB_OFFLINE=1 to use a copy from the local cache"
        ) from error


def http_error() -> type[Exception]:
    """Return the base of what the Hub's client raises where there is no connection.

    huggingface_hub 1 talks through httpx, and 2 through httpx2, whose errors have the same names.
    """
    from huggingface_hub.utils import get_session

    library = type(get_session()).__module__.partition(".")[0]
    return sys.modules[library].HTTPError


def _no_such_path(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist: there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if near:
        return f"{path} does not exist; did you mean {' or '.join(str(folder / name) for name in near)}?"
    data = [name for name in names if data_suffix(name) in READERS]
    return f"{path} does not exist; {folder} holds {', '.join(data[:5]) if data else 'no data file'}"
