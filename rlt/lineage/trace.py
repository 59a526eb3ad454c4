"""One explanation through the tables that hold it: who wrote it, scored it, chose it, and learnt from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rlt.config.save import load_config
from rlt.errors import DataError
from rlt.formats.tags import tag_style
from rlt.lineage.chain import history, input_origin
from rlt.lineage.rows import Row, is_written_by_a_teacher, rows_of, same_explanations
from rlt.lineage.runs import Run, Runs
from rlt.traces.training import load_training_traces


def find_traces(problem: str, sample_index: int | None, runs: Runs) -> list[list[Row]]:
    """Return the explanations of a problem, each with its row in every table that holds it.

    `problem` is an id or the beginning of one. The first row is of the table that no other led to; a
    selection from several sources may have given the explanation another number.
    """
    rows = [row for run in runs.all for row in rows_of(run, problem)]
    ids = sorted({row.values["problem_id"] for row in rows})
    if not ids:
        raise DataError(
            f"no run under {runs.where} holds an explanation of problem {problem}: give a problem_id of "
            "traces there, or a path that exists"
        )
    if len(ids) > 1:
        raise DataError(
            f"{problem} begins the ids of {len(ids)} problems ({ids[0]}, {ids[1]}, …): give more of it"
        )
    found = with_index(same_explanations(rows, runs), sample_index)
    return sorted(found, key=lambda same: (same[0].values["sample_index"], str(same[0].path)))


def with_index(found: Sequence[list[Row]], sample_index: int | None) -> list[list[Row]]:
    """Return the explanations that their first table numbers so, all for None; DataError if there is none."""
    numbers = sorted({same[0].values["sample_index"] for same in found})
    if sample_index is None or sample_index in numbers:
        return [same for same in found if sample_index in (None, same[0].values["sample_index"])]
    problem = found[0][0].values["problem_id"]
    raise DataError(f"problem {problem} has no explanation {sample_index}, only {numbers}")


def trace_lineage(rows: Sequence[Row], runs: Runs, others: Sequence[Sequence[Row]] = ()) -> dict[str, Any]:
    """Return everything that is known of one explanation; `rows` as `find_traces` gives them.

    `others` are explanations of the same problem, of which those with the same text are named.
    """
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
        "line": first.line,
        "same_text": [
            {"table": str(r.path), "line": r.line, "sample_index": r.values["sample_index"]}
            for r in (other[0] for other in others if other[0] is not first)
            if r.values["explanation"] == values["explanation"]
        ],
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
    tags = tag_style(config.layout.tags)
    trained = load_training_traces(config.data, str(row.path), tags, config.distill.malformed)
    return None if row.line in trained.rows.items else f"it is not in data.subset.n={config.data.subset.n}"


def _teacher(row: Row, runs: Runs) -> dict[str, Any] | None:
    """Return the checkpoint that wrote a trace; one that scored it has the same role in its run."""
    described = row.run.inputs.get("teacher") if is_written_by_a_teacher(row.run) else None
    return input_origin("teacher", described, runs)[0] if described else None
