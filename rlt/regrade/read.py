"""Files of samples -> samples, whatever tool has written them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlt.errors import DataError
from rlt.regrade.evalchemy import is_evalchemy, read_evalchemy
from rlt.regrade.lighteval import is_lighteval, read_lighteval
from rlt.regrade.sample import Sample
from rlt.regrade.skythought import is_skythought, read_skythought
from rlt.regrade.texts import is_texts, read_texts

FILES = ((is_skythought, read_skythought), (is_evalchemy, read_evalchemy))
"""Of tools that write one record for all: knows such a file, reads it."""
ROWS = ((is_lighteval, read_lighteval), (is_texts, read_texts))
"""Of tools that write a row for each question or answer."""
_SHAPES = (
    "It must be lighteval's details (doc, model_response), SkyThought's results.json (responses), "
    "evalchemy's results (examples with model_outputs), or rows with `answer` and `text`"
)


def read_samples(path: Path, task: str) -> Iterator[Sample]:
    """Yield the samples of a file; `task` is the name of those that name none. DataError for another file."""
    if not path.is_file():
        raise DataError(f"{path} does not exist: give files of samples")
    content: Any = _parquet(path) if path.suffix == ".parquet" else _json(path)
    for knows, read in FILES:
        if knows(content):
            yield from read(content, task, str(path))
            return
    rows = content if isinstance(content, list) else [content]
    if not rows:
        raise DataError(f"{path} holds no samples: give another file")
    for number, row in enumerate(rows, 1):
        read = next((read for knows, read in ROWS if isinstance(row, dict) and knows(row)), None)
        if read is None:
            found = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{path}, row {number} is of no known shape ({found:.200}). {_SHAPES}.")
        yield from read(row, task, f"{path}, row {number}")


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet  # takes half a second

    try:
        return parquet.read_table(path).to_pylist()
    except OSError as error:  # pyarrow's own errors are ValueErrors or OSErrors
        raise DataError(f"{path} is no parquet file ({error}): give another one") from error
    except ValueError as error:
        raise DataError(f"{path} is no parquet file ({error}): give another one") from error


def _json(path: Path) -> Any:
    """Return the content of a JSON file, or the rows of a JSONL."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        pass
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number} is neither JSON nor a line of JSONL ({error}): "
                    "correct or remove it"
                ) from error
    return rows
