"""Which traces a student is trained on: those that no selection excluded, and what is malformed.

Rows come from collect_traces, score_traces, a selection, or any dataset with reasoning traces.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace

from rlt.config.schema import Config, DataSettings, SubsetSettings
from rlt.data.kept import KeptRows
from rlt.data.load import held_out_data, take_subset
from rlt.data.sources import held_out_rows
from rlt.data.traces import ExplainedRow, load_traces, number_traces
from rlt.errors import DataError
from rlt.formats.tags import TagStyle
from rlt.records import Trace
from rlt.traces.columns import flag, is_well_formed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingTraces:
    """The traces of a source that a student is trained on, and how many are not, by reason."""

    rows: KeptRows[Trace]
    num_unselected: int
    """Rows that a selection excluded."""
    num_malformed: int
    """Malformed traces, whether they were kept or dropped."""

    @property
    def teachers(self) -> dict[str, int]:
        """How many of the traces each teacher wrote; none where the source does not say."""
        named = (trace.problem.extra.get("teacher") for trace in self.rows.values)
        return dict(Counter(name for name in named if isinstance(name, str)).most_common())


def load_training_traces(data: DataSettings, source: str, tags: TagStyle, malformed: str) -> TrainingTraces:
    """Return the traces of `source`, of which `malformed` says whether broken ones count (keep or drop)."""
    loaded = load_traces(replace(data, subset=SubsetSettings()), source, tags)
    checked = loaded.lay_out(_with_readable_flags, data)
    chosen = {n: row for n, row in checked.items.items() if flag(row.problem, "selected") is not False}
    num_unselected = len(checked.items) - len(chosen)
    if num_unselected:
        logger.info("%d of %d rows are skipped: not selected", num_unselected, len(checked.items))
    if not chosen:
        raise DataError(f"{source} has no row to train on: in all of them `selected` is false")
    traces = _one_each(take_subset(replace(checked, items=chosen), data.subset))
    empty = {n for n, trace in traces.items.items() if trace.explanation is None}
    traces = _without(traces, empty, "there is no explanation")
    broken = {n for n, trace in traces.items.items() if is_malformed(trace, tags)}
    if broken:
        what = f"{len(broken)} of {len(traces.items)} traces are malformed"
        logger.warning("%s (distill.malformed=%s)", what, malformed)
    if malformed == "drop":
        traces = _without(traces, broken, "malformed")
    return TrainingTraces(traces, num_unselected, len(broken))


def load_eval_traces(config: Config, tags: TagStyle) -> TrainingTraces | None:
    """Return the held-out traces of evaluation.path; None without one."""
    path = config.evaluation.path
    if path is None:
        return None
    with held_out_rows():
        return load_training_traces(held_out_data(config), path, tags, config.distill.malformed)


def is_malformed(trace: Trace, tags: TagStyle) -> bool:
    """Whether an explanation is not well formed, or holds a tag that belongs around it."""
    text = trace.explanation
    return text is not None and (not is_well_formed(trace) or any(tag in text for tag in tags.strings))


def _with_readable_flags(row: ExplainedRow) -> ExplainedRow:
    for name in ("selected", "well_formed"):
        flag(row.problem, name)
    return row


def _one_each(rows: KeptRows[ExplainedRow]) -> KeptRows[Trace]:
    """Return the rows' traces under the rows' numbers, or counted through where a row brings several."""
    traces = number_traces(rows.values)
    if len(traces) == len(rows.items):
        items = dict(zip(rows.items, traces, strict=True))
        return KeptRows(
            rows.source, rows.unit, items, rows.total, rows.skipped, rows.places, numbers=rows.numbers
        )
    return KeptRows(rows.source, "explanation", dict(enumerate(traces, start=1)), len(traces), rows.skipped)


def _without(traces: KeptRows[Trace], out: set[int], reason: str) -> KeptRows[Trace]:
    """Return the traces without some, which are listed as skipped."""
    kept = {n: trace for n, trace in traces.items.items() if n not in out}
    if not kept:
        raise DataError(f"{traces.source} has no row to train on: {reason}, in all of them")
    listed = tuple(traces.refused(n, reason) for n in sorted(out))
    return replace(traces, items=kept, skipped=(*traces.skipped, *listed))
