"""Which files of a folder make up a split. `datasets` decides that, by names or by the folder's README.

It reads none of them: its readers guess types (files.py), and a folder must give the rows of its files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rlt.config.files import data_suffix
from rlt.config.schema import DATA_SUFFIXES
from rlt.errors import DataError, first_line

logger = logging.getLogger(__name__)

Splits = Mapping[str, Sequence[Path]]
"""The files of each split, in their order."""
_RUN = "run.json"
_RUN_TABLES = ("traces.jsonl", "scores.jsonl")
"""Tables of problems and traces that our stages write."""
_NUM_SHOWN = 5


def named_splits(path: Path, config_name: str | None) -> Splits:
    """Return the files of each split of a folder; DataError for one that holds none that we read."""
    import datasets

    found = _data_files(path)
    if (path / _RUN).is_file() and not any(file.name.startswith(("train.", "test.")) for file in found):
        raise DataError(f"{path} is the folder of a run{_run_table(path)}")
    if not found:
        ends = ", ".join(DATA_SUFFIXES)
        raise DataError(f"the folder {path} holds no file with rows that ends in one of {ends}")
    with datasets_errors(str(path)):
        builder = datasets.load_dataset_builder(str(path), config_name)
        listed = builder.config.data_files or {}
        splits = {str(name): [Path(file) for file in files] for name, files in listed.items()}
    for files in splits.values():
        if other := next((file for file in files if data_suffix(file) not in DATA_SUFFIXES), None):
            raise DataError(f"{other} must end in one of {', '.join(DATA_SUFFIXES)}")
    return splits


def warn_of_unread(path: Path, splits: Splits) -> None:
    """Warn of files with rows that belong to no split: `datasets` takes the most frequent kind of file."""
    taken = {file.resolve() for files in splits.values() for file in files}
    left = [file.relative_to(path).as_posix() for file in _data_files(path) if file.resolve() not in taken]
    if left:
        more = f" and {len(left) - _NUM_SHOWN} more" if len(left) > _NUM_SHOWN else ""
        logger.warning(
            "%s: not read, as they belong to no split: %s%s", path, ", ".join(left[:_NUM_SHOWN]), more
        )


@contextmanager
def datasets_errors(source: str) -> Iterator[None]:
    """Turn what `datasets` raises into one sentence."""
    from datasets import exceptions
    from datasets.inspect import SplitsNotFoundError

    try:
        yield
    except DataError:
        raise
    except (exceptions.DatasetGenerationError, SplitsNotFoundError) as error:
        raise DataError(f"{source} cannot be read: {first_line(error.__cause__ or error)}") from error
    except (OSError, ValueError, RuntimeError, exceptions.DatasetsError) as error:
        # The whole family that `datasets` raises for missing, private, gated, damaged or unreachable data.
        raise DataError(f"{source} cannot be read: {first_line(error)}") from error


def _run_table(path: Path) -> str:
    tables = [path / name for name in _RUN_TABLES if (path / name).is_file()]
    if tables:
        return f": give its file {' or '.join(map(str, tables))}"
    return f", which holds no table of problems or traces ({' or '.join(_RUN_TABLES)}): give a data file"


def _data_files(path: Path) -> list[Path]:
    """Return the files of a folder that may hold rows; hidden ones are none."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.stat().st_size)
    visible = (f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts))
    return [file for file in visible if data_suffix(file) in DATA_SUFFIXES]
