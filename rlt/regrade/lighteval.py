"""Details of lighteval: one row per question, from its parquet files or as JSON.

Today's rows hold `doc`, `model_response` and `metric`; earlier ones `full_prompt`, `predictions`, `gold`.
Values that an earlier version has written as text (`"['…']"`) are read as what they say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from rlt.config.rules.benchmarks import plain_task
from rlt.errors import DataError
from rlt.regrade.sample import Sample, plain_reference, texts_of


def is_lighteval(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of lighteval's."""
    return {"doc", "model_response"} <= row.keys() or {"predictions", "gold"} <= row.keys()


def read_lighteval(row: Mapping[str, Any], task: str, where: str) -> Iterator[Sample]:
    """Yield the samples of a row; `task` is the name of those rows that name none."""
    if "doc" in row:
        yield from _read(_plain(row["doc"]), _plain(row["model_response"]), row, task, where)
        return
    predictions = texts_of(_plain(row["predictions"]), f"{where}, predictions")
    gold = _plain(row["gold"])
    reference = plain_reference(gold[0] if isinstance(gold, list) and gold else gold)
    question = row.get("example") or row.get("full_prompt")
    tokens = _plain(row.get("cont_tokens") or [])
    for place, text in enumerate(predictions):
        yield Sample(
            task, question, reference, text, f"{question}", _length(tokens, place), None, _verdict(row)
        )


def _read(doc: Any, response: Any, row: Mapping[str, Any], task: str, where: str) -> Iterator[Sample]:
    if not isinstance(doc, Mapping) or not isinstance(response, Mapping):
        raise DataError(f"{where}: `doc` and `model_response` must be records, as lighteval writes them")
    choices, gold = doc.get("choices") or [], doc.get("gold_index")
    gold = gold[0] if isinstance(gold, list) and gold else gold
    if not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise DataError(f"{where}: `doc.gold_index` names none of its {len(choices)} choices")
    reference = plain_reference(choices[gold])
    letters = [str(choice).strip() for choice in choices] if len(choices) > 1 else []
    name = plain_task(doc["task_name"]) if doc.get("task_name") else task
    question = doc.get("original_query") or doc.get("query")
    texts = texts_of(response.get("text"), f"{where}, model_response.text")
    tokens = response.get("output_tokens") or []
    theirs = _verdict(row) if len(texts) == 1 else None
    for place, text in enumerate(texts):
        length = _length(tokens, place)
        yield Sample(name, question, reference, text, f"{question}", length, None, theirs, letters)


def _plain(value: Any) -> Any:
    """Return what a text says that holds a list or a record."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return value


def _length(tokens: Any, place: int) -> int | None:
    is_there = isinstance(tokens, list) and place < len(tokens) and isinstance(tokens[place], list)
    return len(tokens[place]) if is_there and tokens[place] else None


def _verdict(row: Mapping[str, Any]) -> bool | None:
    """Return the tool's verdict of a question with one sample: its only metric, where that is 0 or 1."""
    metrics = _plain(row.get("metric") or row.get("metrics") or {})
    values = [v for v in metrics.values() if v is not None] if isinstance(metrics, Mapping) else []
    return bool(values[0]) if len(values) == 1 and values[0] in (0, 1) else None
