"""report.html of an evaluation, from what is in its run directory: numbers, plots, tables, and some answers.

A question that samples.jsonl leaves out is private: of its answers, which may quote it, no text is shown.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rlt.reporting.evaluation_plots import CUT, OUTCOMES, RIGHT, WRONG, draw_lengths
from rlt.reporting.page import escaped, figure
from rlt.reporting.pager import SCRIPT, STYLE, Entry, pager
from rlt.reporting.run_page import configuration, facts, to_run_again, versions, write_run_page
from rlt.reporting.tables import html_table, named_values
from rlt.rundir.run_record import read_run
from rlt.text import Rows, shorten_middle

Row = Mapping[str, Any]
LONGEST_QUESTION, LONGEST_ANSWER, LONGEST_READ = 3000, 8000, 300
"""Characters shown of a question, an answer, and what was read in it."""
DIFFER = "graders differ"
_STYLE = """
.wide { grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)) }
"""
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
    sections = [
        f"<p>{escaped(results.model)}</p>",
        _numbers(results),
        _lengths(counted),
        _counts("Finish reasons", "finish reason", [(c.task, c.finish_reason, c.outcome) for c in counted]),
        _counts("Rules that found the answer", "rule", [(c.task, c.rule, c.outcome) for c in counted]),
        _answers(answers, len(counted)),
        facts("Protocol", protocol),
        facts("What the numbers go back to", origins),
        to_run_again(run),
        versions(run),
        configuration(run_dir / "config.yaml"),
    ]
    return write_run_page(
        run_dir, run, sections, note=f"{len(counted):,} answers", style=_STYLE + STYLE, script=SCRIPT
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


def _numbers(results: Results) -> str:
    plots = "".join(
        figure(svg, "accuracies", "accuracy with its 95 % interval") for svg in results.accuracies
    )
    table, how = html_table(results.table), f"<p class='label'>{escaped(results.how)}</p>"
    parts = [f'<h2>Result</h2>{table}{how}<div class="grid wide">{plots}</div>']
    if len(results.groups) > 1:
        parts.append(f"<h2>By groups of problems</h2>{html_table(results.groups)}")
    if results.published:
        legend = f"<p class='label'>{escaped(results.legend)} Hollow marks in the plots.</p>"
        parts.append(f"<h2>Beside published results</h2>{html_table(results.published)}{legend}")
    return "".join(parts)


def _lengths(counted: Sequence[Counted]) -> str:
    """Return a histogram for each task."""
    by_task: dict[str, dict[str, list[int]]] = defaultdict(lambda: {outcome: [] for outcome in OUTCOMES})
    for one in counted:
        if one.num_tokens is not None:
            by_task[one.task][one.outcome].append(one.num_tokens)
    figures = []
    for task, lengths in by_task.items():
        of_all = [length for of_outcome in lengths.values() for length in of_outcome]
        note = f"mean {fmean(of_all):,.0f}, median {median(of_all):,.0f}, longest {max(of_all):,} tokens"
        figures.append(figure(draw_lengths(task, lengths), f"lengths in {task}", note))
    note = "<p class='label'>Cut: an answer that its length ended before it was right.</p>"
    return f'<h2>Lengths</h2><div class="grid">{"".join(figures)}</div>{note}'


def _counts(title: str, what: str, answers: Iterable[tuple[str, str, str]]) -> str:
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
    return f"<h2>{escaped(title)}</h2>{html_table(rows)}"


def _answers(answers: Sequence[tuple[Counted, Row]], total: int) -> str:
    """Return the section with the chosen answers."""
    if not answers:
        return ""
    tasks = list(dict.fromkeys(counted.task for counted, _ in answers))
    verdicts = [*OUTCOMES, DIFFER] if any(counted.differs for counted, _ in answers) else list(OUTCOMES)
    entries = [_entry(counted, row) for counted, row in answers]
    note = (
        f"<p class='label'>{len(answers):,} of {total:,}: of each task and verdict equally many, where there "
        "are, evenly spread. Long texts are shortened in their middle; samples.jsonl has them whole.</p>"
    )
    return f"<h2>Answers</h2>{note}{pager(entries, {'task': tasks, 'verdict': verdicts})}"


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
    blocks = (f'<div class="label">{label}</div><pre>{escaped(text)}</pre>' for label, text in texts.items())
    look = "sample" if counted.outcome == RIGHT else "sample worst"
    body = f'<div class="label">{escaped(place)}</div>{named_values(read)}{"".join(blocks)}'
    words = (counted.outcome, DIFFER) if counted.differs else (counted.outcome,)
    return Entry(body, look, {"task": (counted.task,), "verdict": words})


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
        for name, value in _flat({top: manifest[top]}):
            is_origin = top in _ORIGINS or name.endswith("sha256")
            (origins if is_origin else protocol).append((name, value))
    return protocol, origins


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with the names on the way to them, joined by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
