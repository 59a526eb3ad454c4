"""One explanation through the tables that hold it: who wrote it, scored it, chose it, and learnt from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.config.save import load_config
from rlt.errors import DataError
from rlt.formats.tags import TAG_STYLES
from rlt.lineage.chain import history, input_origin
from rlt.lineage.runs import Run, Runs
from rlt.traces.training import load_training_traces


@dataclass(frozen=True)
class Row:
    """A trace as one table holds it."""

    run: Run
    path: Path
    line: int
    """Counted from 1."""
    values: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The table, in each form that it was written in."""
        return [path for path in (self.path, self.path.with_suffix(".parquet")) if path.is_file()]


def find_traces(problem: str, sample_index: int | None, runs: Runs) -> list[list[Row]]:
    """Return the explanations of a problem, each with its row in every table that holds it.

    `problem` is an id or the beginning of one. The same text is the same explanation: a selection from
    several sources may have given it another number. The first row is of the table that no other led to.
    """
    rows = [row for run in runs.all for row in _rows_of(run, problem)]
    ids = sorted({row.values["problem_id"] for row in rows})
    if not ids:
        raise DataError(f"no run under {runs.where} holds an explanation of problem {problem}")
    if len(ids) > 1:
        raise DataError(
            f"{problem} begins the ids of {len(ids)} problems ({ids[0]}, {ids[1]}, …): give more of it"
        )
    by_text: dict[str, list[Row]] = {}
    for row in rows:
        by_text.setdefault(row.values["explanation"], []).append(row)
    found = [_origin_first(same, runs) for same in by_text.values()]
    if sample_index is not None:
        numbers = sorted(same[0].values["sample_index"] for same in found)
        found = [same for same in found if same[0].values["sample_index"] == sample_index]
        if not found:
            raise DataError(f"problem {ids[0]} has no explanation {sample_index}, only {numbers}")
    return sorted(found, key=lambda same: (same[0].values["sample_index"], str(same[0].path)))


def trace_lineage(rows: Sequence[Row], runs: Runs) -> dict[str, Any]:
    """Return everything that is known of one explanation; `rows` as `find_traces` gives them."""
    first = rows[0]
    values = first.values
    return {
        "problem": {key: values.get(key) for key in ("problem_id", "question", "solution")},
        "sample_index": values.get("sample_index"),
        "explanation": {
            key: values.get(key)
            for key in (
                "explanation",
                "num_tokens",
                "finish_reason",
                "well_formed",
                "why",
                "teacher",
                "sampling",
            )
        },
        "table": str(first.path),
        "scores": [
            {"table": str(r.path), **{key: r.values.get(key) for key in ("score", "rank", "breakdown")}}
            for r in rows
            if r.values.get("score") is not None
        ],
        "selected": [
            {"table": str(r.path), "selected": r.values["selected"], "why": _why_dropped(r)}
            for r in rows
            if r.values.get("selected") is not None
        ],
        "readers": [reader for row in rows for reader in _readers(row, rows, runs)],
        "teacher": _teacher(first, runs),
        "history": history(first.run, runs),
    }


def _rows_of(run: Run, problem: str) -> Iterator[Row]:
    for path in sorted(run.directory.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if problem not in line:
                    continue
                values = json.loads(line)
                is_trace = values.get("explanation") is not None and values.get("sample_index") is not None
                if is_trace and str(values.get("problem_id", "")).startswith(problem):
                    yield Row(run, path, number, values)


def _origin_first(rows: Sequence[Row], runs: Runs) -> list[Row]:
    """Return the rows with that of the first table in front."""
    digests = {runs.digest(path): row for row in rows for path in row.files}

    def is_first(row: Row) -> bool:
        read = {described.get("sha256") for described in row.run.inputs.values()}
        return not any(digest in read for digest, other in digests.items() if other is not row)

    return sorted(rows, key=lambda row: (not is_first(row), str(row.path)))


def _why_dropped(row: Row) -> str | None:
    """Return why a selection left a trace out, from the list beside its table."""
    path = row.path.with_name("dropped.jsonl")
    if row.values["selected"] or not path.is_file():
        return None
    key = (row.values["problem_id"], row.values["sample_index"])
    for line in path.read_text(encoding="utf-8").splitlines():
        dropped = json.loads(line)
        if (dropped["problem_id"], dropped["sample_index"]) == key:
            return str(dropped["why"]) + (f" ({dropped['detail']})" if dropped.get("detail") else "")
    return None


def _readers(row: Row, rows: Sequence[Row], runs: Runs) -> Iterator[dict[str, Any]]:
    """Yield the runs that read a row's table and wrote none that holds it: students, plans, pages."""
    tables = {other.run.directory for other in rows}
    for run, role in (found for path in row.files for found in runs.readers(runs.digest(path))):
        if run.directory in tables:
            continue
        is_model = (run.directory / "config.json").is_file()
        left_out = _left_out(run, row, role) if is_model else None
        yield {
            **run.summary(),
            "table": str(row.path),
            "role": role,
            "trained": is_model and left_out is None and role != "held_out",
            "left_out": left_out,
        }


def _left_out(run: Run, row: Row, role: str) -> str | None:
    """Return why a row of its data was not trained on, or None."""
    if role == "held_out":
        return "it was held out"
    if row.values.get("selected") is False:
        return "it was not selected"
    path = run.directory / "skipped_rows.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        skipped = json.loads(line)
        if skipped["row"] == row.line and skipped["source"] == run.inputs[role].get("file"):
            return str(skipped["reason"])
    config = load_config(run.directory / "config.yaml")
    if config.data.subset.n is None:
        return None
    tags = TAG_STYLES[config.layout.tags]
    trained = load_training_traces(config.data, str(row.path), tags, config.distill.malformed)
    return None if row.line in trained.rows.items else f"it is not in data.subset.n={config.data.subset.n}"


def _teacher(row: Row, runs: Runs) -> dict[str, Any] | None:
    """Return the checkpoint that wrote a trace."""
    described = row.run.inputs.get("teacher")
    return input_origin("teacher", described, runs)[0] if described else None
