"""Rows of json, jsonl, csv and parquet files, exactly as written and each with its place in the file.

Read here and not through `datasets`, whose readers guess types: the answer "2024-01-01" becomes a
date and the CSV cell 007 the number 7, and one broken line ends the whole file without its number.
Nothing here knows what a problem is.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlt.errors import DataError, first_line

MAX_CSV_FIELD = 2**31 - 1  # the csv module's own limit, 128 KiB, is shorter than a long trace


@dataclass(frozen=True)
class SourceRow:
    """One row of a source, or the reason why it could not be read."""

    number: int
    """Where it stands, counted from 1: lines of a jsonl or csv file, rows of everything else."""
    values: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


def read_jsonl(path: Path) -> list[SourceRow]:
    """Return one row per line that is not blank; a line that is not a JSON object carries its fault."""
    # Bytes are split at "\n" alone: str.splitlines would also cut at U+2028 inside a text.
    with path.open("rb") as file:
        return [_json_row(i, line) for i, line in enumerate(file, start=1) if line.strip()]


def read_json(path: Path) -> list[SourceRow]:
    """Return the rows of a JSON list of objects; a file that holds JSON lines is read as such."""
    text = path.read_bytes()
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise DataError(f"{path} is nested too deep to read") from error
    except ValueError as error:  # broken JSON, broken UTF-8, or a number of too many digits
        rows = read_jsonl(path) if text.lstrip().startswith(b"{") else []
        if any(row.fault is None for row in rows):
            return rows
        raise DataError(f"{path} holds neither a JSON list nor JSON lines: {error}") from error
    if isinstance(content, dict):
        return [SourceRow(1, content)]
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a JSON list of rows, got {type(content).__name__}")
    return [_object_row(i, value) for i, value in enumerate(content, start=1)]


def read_csv(path: Path) -> list[SourceRow]:
    """Return the rows below the header line, every value as text; `number` is a row's first line."""
    csv.field_size_limit(MAX_CSV_FIELD)
    rows: list[SourceRow] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        line = 1
        try:
            header = next(reader, [])
            _check_header(path, header)
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    rows.append(_csv_row(line, header, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path} is not valid CSV in the row at line {line}: {error}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text after line {line}: {error.reason}") from error
    return rows


def read_parquet(path: Path) -> list[SourceRow]:
    """Return the rows of a parquet file as plain Python values."""
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.ParquetFile(path).read().to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from error
    return [SourceRow(i, values) for i, values in enumerate(rows, start=1)]


def _json_row(number: int, line: bytes) -> SourceRow:
    try:
        return _object_row(number, json.loads(line.decode("utf-8-sig")))
    except json.JSONDecodeError as error:
        return SourceRow(number, fault=f"not valid JSON: {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        return SourceRow(number, fault=f"not UTF-8 text: {error.reason} at byte {error.start + 1}")
    except ValueError as error:  # a number of too many digits
        return SourceRow(number, fault=f"not readable JSON: {error}")
    except RecursionError:
        return SourceRow(number, fault="not readable JSON: nested too deep")


def _object_row(number: int, value: Any) -> SourceRow:
    if isinstance(value, dict):
        return SourceRow(number, value)
    return SourceRow(number, fault=f"must be a JSON object, got {type(value).__name__}")


def _check_header(path: Path, header: list[str]) -> None:
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path} has the column {doubled[0]!r} twice in its header line, must be once")


def _csv_row(number: int, header: list[str], cells: list[str]) -> SourceRow:
    if len(cells) != len(header):
        return SourceRow(number, fault=f"has {len(cells)} cells where the header has {len(header)}")
    return SourceRow(number, dict(zip(header, cells, strict=True)))
