"""Samples on disk (parquet) and in the console: what the policy wrote, and what it earned.

A row has `problem_id, sample_index, step, question, solution, explanation, reward`, the parts of the score
under their own names (`r_ss`, `r_kl_mean`, …), and anything else the trainer knows. Files are named by
step: `step_000012`, and `eval_step_000012` for held-out problems. Of a student the explanation is its own
thought, and `student_answer` follows it.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from rlt.errors import DataError
from rlt.io import set_aside, write_atomically
from rlt.text import printable, shorten_middle

SampleRow = dict[str, Any]
"""The columns that the module names, the parts of the score, and what else the trainer knows."""
SCORE_KEYS = (
    "reward",
    "advantage",
    "r_ss",
    "r_ss_mean",
    "r_ss_min",
    "r_kl",
    "r_kl_mean",
    "r_kl_max",
    "format",
    "reverse_kl",
    "correct",
    "well_formed",
    "explanation_tokens",
    "solution_tokens",
)
TEXTS = {
    "question": "question",
    "solution": "solution",
    "explanation": "explanation",
    "student_answer": "answer",
}
"""Columns that a person reads, with what they are called there."""
_NAME = re.compile(r"(?P<kind>\w*?)step_(?P<step>\d+)\.parquet")


def write_samples(directory: str | Path, name: str, rows: list[SampleRow]) -> Path:
    """Return `directory/name.parquet`, holding the rows; a key that a row lacks is null."""
    import pyarrow as pa
    from pyarrow import parquet

    if not rows:
        raise DataError(f"there are no rows to write to {directory}/{name}.parquet")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {}
    for key in keys:
        values = [_storable(row.get(key)) for row in rows]
        try:
            columns[key] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"column {key!r} of the samples mixes types ({error}); give it one type"
            ) from error
    table = pa.table(columns)
    return write_atomically(
        Path(directory) / f"{name}.parquet", lambda path: parquet.write_table(table, path)
    )


def read_samples(path: str | Path) -> list[SampleRow]:
    """Return the rows of a samples file."""
    from pyarrow import parquet

    return parquet.ParquetFile(path).read().to_pylist()


def step_name(step: int) -> str:
    """Return the file name (without ending) of a step's samples; names sort by step."""
    return f"step_{step:06d}"


def sample_files(directory: str | Path, kind: str = "") -> dict[int, Path]:
    """Return the sample files of one kind by step, in order: "" those of training, "eval_" held-out ones."""
    found = {}
    for path in Path(directory).glob("*.parquet"):
        match = _NAME.fullmatch(path.name)
        if match and match["kind"] == kind:
            found[int(match["step"])] = path
    return dict(sorted(found.items()))


def prepare_samples(directory: str | Path, step: int) -> None:
    """Make the folder fit a run that starts after `step`: at 0 an older folder is set aside, else cut."""
    directory = Path(directory)
    if step == 0 and directory.is_dir() and any(directory.iterdir()):
        set_aside(directory)
    for path in directory.glob("*.parquet"):
        match = _NAME.fullmatch(path.name)
        if match and int(match["step"]) > step:
            path.unlink()


def format_sample(row: SampleRow, width: int | None = None, explanation_limit: int = 1200) -> str:
    """Return a console block for one sample: its texts, and the aligned score."""
    width = max(40, min(width or shutil.get_terminal_size((100, 24)).columns, 120))
    place = [
        f"{label} {row[key]}"
        for label, key in (("step", "step"), ("problem", "problem_id"), ("sample", "sample_index"))
        if row.get(key) is not None
    ]
    title = printable(" · ".join(place) or "sample").replace("\n", " ")
    parts = [f"── {title} ".ljust(width, "─")]
    for key, label in TEXTS.items():
        limit = explanation_limit if key == "explanation" else 600
        if row.get(key) is not None:
            parts.append(_paragraph(label, shorten_middle(printable(str(row[key])).strip(), limit), width))
    scores = {key: row[key] for key in SCORE_KEYS if isinstance(row.get(key), int | float)}
    return "\n".join(parts + _score_lines(scores, width))


def _paragraph(label: str, text: str, width: int) -> str:
    indent = " " * 13
    lines = [
        piece
        for line in text.split("\n")
        for piece in textwrap.wrap(line, width - len(indent), break_on_hyphens=False) or [""]
    ]
    return f"{label:<13}" + f"\n{indent}".join(lines or ["(empty)"] if text else ["(empty)"])


def _score_lines(scores: dict[str, float], width: int) -> list[str]:
    """Return names above values in columns, as many to a line as fit."""
    cells = [
        (key, f"{value:d}" if isinstance(value, int) else f"{value:.4g}") for key, value in scores.items()
    ]
    lines: list[str] = []
    names, values = f"{'score':<11}", " " * 11
    for key, value in cells:
        size = max(len(key), len(value)) + 2
        if len(names) + size > width:
            lines += [names, values]
            names = values = " " * 11
        names += key.rjust(size)
        values += value.rjust(size)
    return [*lines, names, values] if cells else []


def _storable(value: Any) -> Any:
    """Return a value that Arrow stores: lone surrogates, which UTF-8 cannot hold, become question marks."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode()
    if isinstance(value, dict):  # Parquet has no struct without fields
        return {key: _storable(item) for key, item in value.items()} or None
    return value
