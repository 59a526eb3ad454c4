"""A lineage as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlt.rundir.cost import Cost, total
from rlt.text import shorten_middle

_WIDTH = 300
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")


def trace_text(lineage: Mapping[str, Any]) -> str:
    """Return an explanation's whole story."""
    return "\n".join(_trace_lines(lineage)) + "\n"


def history_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a run and every run before it."""
    return "\n".join(_history_lines(runs)) + "\n"


def _trace_lines(lineage: Mapping[str, Any]) -> Iterator[str]:
    problem, made, teacher = lineage["problem"], lineage["explanation"], lineage["teacher"]
    yield f"problem {problem['problem_id']}, explanation {lineage['sample_index']}"
    yield _field("question", problem["question"])
    yield _field("solution", problem["solution"])
    yield _field("explanation", made["explanation"])
    facts = [f"{made['num_tokens']} tokens"] if made["num_tokens"] is not None else []
    facts += [f"ended by {made['finish_reason']}"] if made["finish_reason"] else []
    if made["well_formed"] is not None:
        facts.append(
            "well-formed" if made["well_formed"] else f"not well-formed: {made['why'] or 'no reason given'}"
        )
    yield _field("form", ", ".join(facts))
    sampling = made["sampling"] or {}
    if isinstance(sampling, dict):
        yield _field("sampling", ", ".join(f"{k} {sampling[k]}" for k in _SAMPLING if k in sampling))
    yield _field("table", f"{lineage['table']}, line {lineage['line']}")
    for other in lineage["same_text"]:
        place = f"explanation {other['sample_index']} in {other['table']}, line {other['line']}"
        yield _field("same text", f"{place}: another explanation, written word for word alike")
    yield _field("teacher", _source(teacher) if teacher else made["teacher"] or "not known")
    yield "scores" if lineage["scores"] else "scores: none under the given folders"
    for score in lineage["scores"]:
        rank = f", rank {score['rank']} of its problem" if score["rank"] else ""
        yield _field(f"{score['score']:+.4f}", f"{score['table']}{rank}")
    yield "selections" if lineage["selected"] else "selections: none, so every reader takes it"
    for choice in lineage["selected"]:
        why = f": {choice['why']}" if choice["why"] else ""
        yield _field("selected" if choice["selected"] else "skipped", f"{choice['table']}{why}")
    yield "read by" if lineage["readers"] else "read by: no run under the given folders"
    for reader in lineage["readers"]:
        how = "trained on it" if reader["trained"] else f"not trained on it: {reader['left_out']}"
        how = how if reader["trained"] or reader["left_out"] else f"as {reader['role']}"
        yield _field(
            reader["stage"], f"{reader['directory']} ({reader['status']}) from {reader['table']}, {how}"
        )
    yield "where it comes from"
    yield from _history_lines(lineage["history"])


def _history_lines(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for run in runs:
        code = run["code"]
        commit = (
            f"commit {code['commit'][:12]}{' with changes' if code['dirty'] else ''}"
            if code["commit"]
            else None
        )
        facts = [
            f"{run['status']} {run['ended'] or ''}".strip(),
            *([] if run["seed"] is None else [f"seed {run['seed']}"]),
            commit or f"rlt {code['package']}",
        ]
        yield f"  {run['directory']}: {run['stage']}, {', '.join(facts)}"
        for source in run["inputs"]:
            yield f"    {source['role']:<12} {_source(source)}"
        yield f"    {'took':<12} {Cost(**run['cost'])}"
    if len(runs) > 1:
        yield f"  all together took {total(Cost(**run['cost']) for run in runs)}"


def _source(source: Mapping[str, Any]) -> str:
    """Return where an input lies now and who wrote it, or where the chain ends."""
    if source["run"] is None:
        return f"{source['end']} The chain ends here."
    moved = "" if source["path"] == source["recorded"] else f", then called {source['recorded']}"
    return f"{source['path']} (sha256 {source['sha256'][:12]}{moved}), written by {source['run']}"


def _field(name: str, value: Any) -> str:
    text = shorten_middle(" ".join(str(value).split()), _WIDTH)
    return f"  {name:<12} {text}"
