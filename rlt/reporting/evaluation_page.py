"""report.html of an evaluation, from what is in its run directory: numbers, plots, tables, and some answers.

A question that samples.jsonl does not hold is private: of its answers, which may quote it, no text is shown.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rlt.io import leaves
from rlt.pages import Figure, script
from rlt.reporting.evaluation_plots import CUT, OUTCOMES, RIGHT, WRONG, draw_lengths
from rlt.reporting.run_page import facts, write_run_page
from rlt.rundir.run_record import read_run
from rlt.text import Rows, shorten_middle

Row = Mapping[str, Any]
LONGEST_QUESTION, LONGEST_ANSWER, LONGEST_READ = 3000, 8000, 300
"""Characters shown of a question, an answer, and what was read in it."""
DIFFER = "graders differ"
_ORIGINS = ("model", "data", "code", "vllm_servers")
_VERSIONS = "libraries"
_PRIVATE = "Not shown: the question is private, and an answer may quote it."


@dataclass(frozen=True)
class Results:
    """What the page shows of the numbers: the model's name, sentences, and tables and plots ready to show."""

    model: str
    how: str
    table: Rows
    accuracies: Sequence[str]
    """SVG."""
    groups: Rows = ()
    """Of problems, the head first."""
    published: Rows = ()
    legend: str = ""


@dataclass(frozen=True)
class Counted:
    """What is counted of an answer."""

    task: str
    outcome: str
    differs: bool
    num_tokens: int | None
    """None where the tool that has sampled it does not say."""
    finish_reason: str
    rule: str


def write_evaluation_page(run_dir: Path, results: Results, num_samples: int) -> Path:
    """Return the path of report.html; it holds at most `num_samples` answers."""
    run = read_run(run_dir)
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    protocol, origins = _split(manifest)
    path = run_dir / "samples.jsonl"
    counted = [count(row) for _, row in _read(path)]
    chosen = frozenset(choose(counted, num_samples))
    answers = [(counted[i], row) for i, row in _read(path, chosen)]
    plots = [Figure(svg, "accuracies", "accuracy with its 95 % interval") for svg in results.accuracies]
    reasons = [(c.task, c.finish_reason, c.outcome) for c in counted]
    rules = [(c.task, c.rule, c.outcome) for c in counted]
    return write_run_page(
        run_dir,
        run,
        "evaluation.html.j2",
        note=f"{len(counted):,} answers",
        script=script("pager.js"),
        results=results,
        accuracies=plots,
        lengths=_lengths(counted),
        counts=[
            ("Finish reasons", _counts("finish reason", reasons)),
            ("Rules that found the answer", _counts("rule", rules)),
        ],
        entries=[_entry(one, row) for one, row in answers],
        filters=_filters([one for one, _ in answers]),
        note_on_answers=_note(len(answers), len(counted)),
        protocol=facts(protocol),
        origins=facts(origins),
    )


def count(row: Row) -> Counted:
    """Return what is counted of an answer's row in samples.jsonl."""
    outcome = RIGHT if row["correct"] else CUT if row["finish_reason"] == "length" else WRONG
    theirs = row["correct_skythought"]
    differs = theirs is not None and theirs != row["correct"]
    return Counted(row["task"], outcome, differs, row["num_tokens"], row["finish_reason"], row["rule"])


def choose(counted: Sequence[Counted], limit: int) -> list[int]:
    """Return the places of at most `limit` answers: equally many of each task and outcome, evenly spread.

    What a small group leaves goes to the larger ones. The same answers give the same choice.
    """
    groups: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    for place, one in enumerate(counted):
        groups[one.task, one.outcome, one.differs].append(place)
    chosen: list[int] = []
    for done, places in enumerate(sorted(groups.values(), key=len)):
        share = min(len(places), (limit - len(chosen)) // (len(groups) - done))
        chosen += [places[i * len(places) // share] for i in range(share)]
    return sorted(chosen)


def _read(path: Path, only: frozenset[int] | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the rows with their places, a line at a time: whole answers may be larger than the memory."""
    with path.open(encoding="utf-8") as lines:
        for place, line in enumerate(lines):
            if only is None or place in only:
                yield place, json.loads(line)


def _lengths(counted: Sequence[Counted]) -> list[Figure]:
    """Return a histogram for each task."""
    by_task: dict[str, dict[str, list[int]]] = defaultdict(lambda: {outcome: [] for outcome in OUTCOMES})
    for one in counted:
        if one.num_tokens is not None:
            by_task[one.task][one.outcome].append(one.num_tokens)
    figures = []
    for task, lengths in by_task.items():
        of_all = [length for of_outcome in lengths.values() for length in of_outcome]
        note = f"mean {fmean(of_all):,.0f}, median {median(of_all):,.0f}, longest {max(of_all):,} tokens"
        figures.append(Figure(draw_lengths(task, lengths), f"lengths in {task}", note))
    return figures


def _counts(what: str, answers: Iterable[tuple[str, str, str]]) -> Rows:
    """Return a table of how the answers of each task ended, by name; `answers` are task, name, outcome."""
    tally: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for task, name, outcome in answers:
        tally[task][name][outcome] += 1
    rows = [["task", what, "answers", "share", *OUTCOMES]]
    for task, names in tally.items():
        total = sum(outcomes.total() for outcomes in names.values())
        for name, outcomes in sorted(names.items(), key=lambda item: (-item[1].total(), item[0])):
            numbers = [f"{outcomes[outcome]}" for outcome in OUTCOMES]
            share = f"{100 * outcomes.total() / total:.1f} %"
            rows.append([task, name, f"{outcomes.total()}", share, *numbers])
    return rows


def _filters(shown: Sequence[Counted]) -> Mapping[str, Sequence[str]]:
    """Return by what the shown answers can be chosen."""
    verdicts = [*OUTCOMES, DIFFER] if any(one.differs for one in shown) else list(OUTCOMES)
    return {"task": list(dict.fromkeys(one.task for one in shown)), "verdict": verdicts}


def _note(num_shown: int, total: int) -> str:
    return (
        f"{num_shown:,} of {total:,}: of each task and verdict equally many, where there are, evenly spread. "
        "Long texts are shortened in their middle; samples.jsonl has them whole."
    )


@dataclass(frozen=True)
class Entry:
    """An answer to look at, and the words that find it by the name of a filter."""

    place: str
    read: Sequence[tuple[str, str]]
    texts: Mapping[str, str]
    look: str
    words: Mapping[str, Sequence[str]]
    """No word holds a `|`; names are lower-case letters."""


def _entry(counted: Counted, row: Row) -> Entry:
    place = f"{counted.task} · problem {row['problem_id']} · sample {row['sample_index']}"
    verdict = [("verdict", counted.outcome)]
    if row["correct_skythought"] is not None:
        verdict.append(("verdict of SkyThought", RIGHT if row["correct_skythought"] else WRONG))
    read = [
        *verdict,
        ("read in it", _shown(row["extracted"], LONGEST_READ) or "nothing"),
        ("by the rule", counted.rule + (", but undecided" if row.get("undecided") else "")),
        ("reference", _shown(row["reference"], LONGEST_READ)),
        ("length", f"{_tokens(counted.num_tokens)}, finish reason {counted.finish_reason}"),
        ("form", row["why"] or "well formed"),
    ]
    texts = {
        "question": _shown(row["question"], LONGEST_QUESTION),
        "answer": _shown(row["text"], LONGEST_ANSWER),
    }
    if row["question"] is None:
        texts = {"question and answer": _PRIVATE}
    look = "sample" if counted.outcome == RIGHT else "sample worst"
    words = (counted.outcome, DIFFER) if counted.differs else (counted.outcome,)
    return Entry(place, read, texts, look, {"task": (counted.task,), "verdict": words})


def _tokens(num: int | None) -> str:
    return "unknown" if num is None else f"{num:,} tokens"


def _shown(text: str | None, most: int) -> str:
    return shorten_middle(text or "", most)


def _split(manifest: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Return the manifest's facts as how the answers were drawn and graded, and as what they go back to.

    The libraries are left to the section of the versions.
    """
    protocol, origins = [], []
    for top in (name for name in manifest if name != _VERSIONS):
        for name, value in leaves({top: manifest[top]}):
            is_origin = top in _ORIGINS or name.endswith("sha256")
            (origins if is_origin else protocol).append((name, value))
    return protocol, origins
