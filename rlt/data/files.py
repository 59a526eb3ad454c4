"""Rows of json, jsonl, csv and parquet files, exactly as written and each with its place in the file.

Read here and not through `datasets`, whose readers guess types: the answer "2024-01-01" becomes a
date and the CSV cell 007 the number 7, and one broken line ends the whole file without its number.
Nothing here knows what a problem is.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zlib import error as ZlibError

from rlt.data.json_shapes import rows_of
from rlt.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow

MAX_CSV_FIELD = 2**31 - 1  # the csv module's own limit, 128 KiB, is shorter than a long trace
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BAD_BYTE = re.compile("[\udc80-\udcff]")
"""What the error handler `surrogateescape` makes of a byte that is no UTF-8: U+DC00 and the byte."""


@dataclass(frozen=True)
class SourceRow:
    """One row of a source, or the reason why it could not be read."""

    number: int
    """Its number, counted from 1: lines of a jsonl or csv file, rows of everything else."""
    values: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


def read_jsonl(path: Path) -> list[SourceRow]:
    """Return one row per line that is not blank; a line that is not a JSON object carries its fault."""
    # Bytes are split at "\n" alone: str.splitlines would also cut at U+2028 inside a text.
    with _open(path) as file:
        rows = _json_lines(file)
    if rows and all(row.fault is not None for row in rows) and _is_one_document(path):
        raise DataError(f"{path} holds one JSON document and not an object a line: let its name end in .json")
    return rows


def read_json(path: Path) -> list[SourceRow]:
    """Return the rows of a JSON document (json_shapes.py); a file that holds JSON lines is read as such."""
    with _open(path) as file:
        raw = file.read()
    try:
        # As json.loads decodes bytes, except that wrong bytes become faults of their rows.
        text = raw.decode(json.detect_encoding(raw), "surrogateescape")
        content = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object)
    except RecursionError as error:
        raise DataError(f"{path} is nested too deep to read") from error
    except ValueError as error:  # broken JSON, or a number of too many digits
        rows = _json_lines(io.BytesIO(raw)) if raw.lstrip().startswith(b"{") else []
        if any(row.fault is None for row in rows):
            return rows
        raise DataError(f"{path} holds neither a JSON list nor JSON lines: {error}") from error
    values = rows_of(content, path)
    if isinstance(content, _Doubled) and not any(isinstance(value, _Doubled) for value in values):
        raise DataError(f"{path} has the key {content.key!r} twice, must be once")
    rows = [_object_row(i, value) for i, value in enumerate(values, start=1)]
    lines = iter([text.count("\n", 0, bad.start()) + 1 for bad in _BAD_BYTE.finditer(text)])
    return rows if _BAD_BYTE.search(text) is None else [_without_bad_bytes(row, lines) for row in rows]


def read_csv(path: Path) -> list[SourceRow]:
    """Return the rows below the header line, every value as text; `number` is a row's first line."""
    csv.field_size_limit(MAX_CSV_FIELD)
    rows: list[SourceRow] = []
    with _open(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
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
    return rows


def read_parquet(path: Path) -> list[SourceRow]:
    """Return the rows of a parquet file as plain Python values."""
    import pyarrow
    from pyarrow import parquet

    try:
        with _open(path) as file:
            table = parquet.ParquetFile(file).read()
        names = table.column_names
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{path} has the column {doubled!r} twice, must be once")
        return _parquet_rows(table)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        if isinstance(error, DataError):  # a ValueError, too
            raise
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from error


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for its bytes, unpacked; errors of unpacking are one sentence."""
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        with opener(path) as file:
            yield file
    except (gzip.BadGzipFile, lzma.LZMAError, ZlibError, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked, is it damaged? ({first_line(error)})") from error
    except OSError as error:
        if error.errno is not None:  # of the system, not of bz2
            raise
        raise DataError(f"{path} cannot be unpacked, is it damaged? ({first_line(error)})") from error


def _is_one_document(path: Path) -> bool:
    try:
        with _open(path) as file:
            return isinstance(json.load(file), list | dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(file: IO[bytes]) -> list[SourceRow]:
    return [_json_row(i, line) for i, line in enumerate(file, start=1) if line.strip()]


def _json_row(number: int, line: bytes) -> SourceRow:
    try:
        return _object_row(number, json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object))
    except json.JSONDecodeError as error:
        if line.strip() in (b"{", b"["):  # one document over many lines
            sign = line.decode().strip()
            return SourceRow(number, fault=f"not valid JSON: {sign!r} alone, must be an object in one line")
        reason = error.msg.removesuffix(" at")  # "Invalid control character at", to be followed by a place
        return SourceRow(number, fault=f"not valid JSON: {reason} at column {error.colno}")
    except UnicodeDecodeError as error:
        return SourceRow(number, fault=f"not UTF-8 text: {error.reason} at byte {error.start + 1}")
    except ValueError as error:  # a number of too many digits
        return SourceRow(number, fault=f"not readable JSON: {error}")
    except RecursionError:
        return SourceRow(number, fault="not readable JSON: nested too deep")


class _Doubled(dict[str, Any]):
    """An object that has a key twice. json.loads would keep the last value and say nothing."""

    key: str = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; one that has a key twice, or holds such an object, is marked."""
    values = dict(pairs)
    marked = next((inner.key for _, value in pairs for inner in _doubled_in(value)), None)
    if len(values) < len(pairs) or marked is not None:
        values = _Doubled(values)
        names = [name for name, _ in pairs]
        values.key = marked or next(name for name in names if names.count(name) > 1)
    return values


def _doubled_in(value: Any) -> Iterator[_Doubled]:
    if isinstance(value, _Doubled):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _doubled_in(item)


def _object_row(number: int, value: Any) -> SourceRow:
    if isinstance(value, _Doubled):
        return SourceRow(number, fault=f"has the key {value.key!r} twice, must be once")
    if isinstance(value, dict):
        return SourceRow(number, value)
    return SourceRow(number, fault=f"must be a JSON object, got {type(value).__name__}")


def _check_header(path: Path, header: list[str]) -> None:
    if bad := _BAD_BYTE.search("".join(header)):
        raise DataError(f"{path} is {_not_utf8(bad[0], ' in its header line')}")
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path} has the column {doubled[0]!r} twice in its header line, must be once")
    if len(header) == 1 and (sign := next((sign for sign in ";\t|" if sign in header[0]), None)):
        raise DataError(f"{path} separates the names in its header line by {sign!r}, must be by commas")


def _csv_row(number: int, header: list[str], cells: list[str]) -> SourceRow:
    if len(cells) != len(header):
        return SourceRow(number, fault=f"has {len(cells)} cells where the header has {len(header)}")
    before = 0
    for name, cell in zip(header, cells, strict=True):
        if bad := _BAD_BYTE.search(cell):
            below = before + cell.count("\n", 0, bad.start())
            line = f", line {number + below}" if below else ""
            return SourceRow(number, fault=_not_utf8(bad[0], f" of `{name}`{line}"))
        before += cell.count("\n")
    return SourceRow(number, dict(zip(header, cells, strict=True)))


def _without_bad_bytes(row: SourceRow, lines: Iterator[int]) -> SourceRow:
    """Return the row, or its fault where it has a byte that is not UTF-8.

    `lines` are those of all such bytes of the document that are still to come.
    """
    bad = _BAD_BYTE.findall(json.dumps(row.values, ensure_ascii=False))
    where = [next(lines, None) for _ in bad]
    if not bad or row.fault is not None:
        return row
    return SourceRow(row.number, fault=_not_utf8(bad[0], f", line {where[0]}" if where[0] else ""))


def _not_utf8(character: str, where: str) -> str:
    byte = f"byte 0x{ord(character) - 0xDC00:02x}"
    return f"not UTF-8 text ({byte}{where}): save the file as UTF-8"


def _parquet_rows(table: pyarrow.Table) -> list[SourceRow]:
    try:
        return [SourceRow(i, values) for i, values in enumerate(table.to_pylist(), start=1)]
    except UnicodeDecodeError:  # says nothing of the row, so each is converted by itself
        return [_parquet_row(i, table) for i in range(1, len(table) + 1)]


def _parquet_row(number: int, table: pyarrow.Table) -> SourceRow:
    try:
        return SourceRow(number, table.slice(number - 1, 1).to_pylist()[0])
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        return SourceRow(number, fault=f"not UTF-8 text ({byte}): write the column as UTF-8")
