"""report.md and report.html of a folder: what was done there, the results, and texts to judge by eye."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rlt.io import write_text
from rlt.pages import render
from rlt.real_model.calls import read_calls
from rlt.real_model.results import (
    RANKS,
    SHARES,
    TEXTS,
    WAYS,
    Change,
    Kind,
    Rank,
    Row,
    Way,
    against_first,
    changes,
    kinds,
    rank_correlation,
    ranks,
    read_rows,
    ways,
)
from rlt.real_model.sizes import read_sizes
from rlt.rundir.metrics import read_metrics
from rlt.rundir.run_record import NAME as RUN_FILE
from rlt.rundir.run_record import read_run
from rlt.text import Rows, markdown

SHOWN = 5
"""Held-out problems whose explanations are printed: the first ones."""
_ENDS = 3
"""Steps averaged at either end of RL."""
_RULE = "──"
"""What the line over each printed explanation begins with."""


@dataclass(frozen=True)
class Section:
    """A heading with what is under it, in this order."""

    title: str
    text: str
    table: Rows = ()
    blocks: Sequence[tuple[str, str]] = field(default=())
    """Captions, each with a text that is shown as it is."""


def write_report(folder: Path) -> Path:
    """Return the path of report.md, made of the runs that have finished; report.html is beside it."""
    title = "The method on a real language model: SmolLM2-135M-Instruct and GSM8K"
    sections = [what_was_done(folder), *results_of(folder / "training", folder / "measures")]
    seeds = [
        seed
        for seed in sorted(folder.glob("three_ways/seed_*"))
        if _finished(*(seed / f"likelihood_{student}" for student, _ in WAYS.values()))
    ]
    if seeds and _finished(start := folder / "measures/likelihood_base"):
        sections.append(ways_section(ways(start, seeds)))
    page = render("sections.html.j2", title=title, sections=sections)
    write_text(folder / "report.html", page)
    return write_text(folder / "report.md", "\n".join([f"# {title}\n", *map(_markdown, sections)]))


def results_of(training: Path, measures: Path) -> list[Section]:
    """Return the sections whose runs have finished, in the order of the method."""
    sections = []
    if _finished(training / "kinds"):
        title = "Four kinds of explanations, read by the base"
        sections.append(kinds_section(title, NO_TEACHER, kinds_of(training / "kinds")))
    if (training / "teacher_rl/metrics.jsonl").is_file():
        sections.append(course_of_rl(training / "teacher_rl"))
    if _finished(measures / "scores_before", measures / "scores_after"):
        before, after = (read_rows(measures / f"scores_{when}/scores.jsonl") for when in ("before", "after"))
        sections += [held_out_section(changes(before, after)), side_by_side(before, after)]
    if _finished(measures / "tokens"):
        sections.append(tokens_section(measures))
    if _finished(*(measures / f"likelihood_{student}" for student in ("base", *RANKS))):
        sections.append(ranks_section(ranks(measures)))
    if _finished(measures / "kinds_teacher"):
        title = "The four kinds with the warmed-up teacher"
        sections.append(kinds_section(title, WITH_TEACHER, kinds_of(measures / "kinds_teacher")))
    return sections


def _finished(*runs: Path) -> bool:
    return all((run / RUN_FILE).is_file() and read_run(run)["status"] == "finished" for run in runs)


NO_TEACHER = (
    "The student is the model as it was fetched. Without a teacher, r_KL is the student's "
    "surprise at the explanation. An explanation that only announces the answer makes the answer likely "
    "(r_SS); what it costs is in r_KL."
)
WITH_TEACHER = (
    "As RL pays it: the student knows its layout, and r_KL compares the teacher after the warm-up, which "
    "reads the solution, with it."
)


def kinds_of(run: Path) -> list[Kind]:
    """Return the kinds of a run of score_traces."""
    return kinds(read_rows(run / "scores.jsonl"))


def what_was_done(folder: Path) -> Section:
    """Return the calls, the machine, and the time of each step."""
    rows = [["step", "status", "minutes", "commit"]]
    for pipeline in ("training", "measures"):
        path = folder / pipeline / "pipeline.json"
        for step in json.loads(path.read_text())["steps"] if path.is_file() else []:
            rows.append(step_row(folder / pipeline / step["name"], step["name"]))
    text = "\n".join(
        f"{call.started} to {call.ended or '?'}: `{call.command}` at commit {call.commit}, {call.cpus} "
        f"CPU cores, GPUs: {', '.join(call.gpus) or 'none'}; load {', '.join(map(str, call.load))} at the "
        "start, between and at the end."
        for call in read_calls(folder)
    )
    return Section("What was done", f"{text}\n\n{read_sizes(folder)}", rows)


def step_row(run: Path, name: str) -> list[str]:
    """Return the name of a step, how its last run ended, the minutes of all of its runs, and the commit."""
    if not (run / RUN_FILE).is_file():
        return [name, "not begun", "", ""]
    record = read_run(run)
    seconds = [
        record.get("seconds") or 0.0,
        *(earlier.get("seconds") or 0.0 for earlier in record.get("earlier", [])),
    ]
    return [name, record["status"], f"{sum(seconds) / 60:.1f}", str(record.get("code", {}).get("commit"))[:7]]


def kinds_section(title: str, text: str, found: Sequence[Kind]) -> Section:
    """Return the table of kinds."""
    rows = [
        [
            "explanation",
            "r_SS",
            "r_KL",
            "reward",
            "r_SS above its own",
            "reward above its own",
            "reward - its own",
        ]
    ]
    for kind in found:
        numbers = [f"{value:+.2f}" for value in (kind.r_ss, kind.r_kl, kind.reward)]
        is_own = kind.difference is None
        counts = ["", ""] if is_own else [str(kind.above_by_r_ss), str(kind.above_by_reward)]
        rows.append([kind.name, *numbers, *counts, "" if is_own else str(kind.difference)])
    return Section(title, text, rows)


def course_of_rl(run: Path) -> Section:
    """Return how far RL came, and its own samples' means at either end."""
    metrics = [row for row in read_metrics(run / "metrics.jsonl") if "reward" in row]
    rows = [["of the sampled completions", f"first {_ENDS} steps", f"last {_ENDS} steps"]]
    for name in ("reward", "r_ss", "r_kl", "missing_tag", "explanation_tokens", "kl", "grad_norm"):
        ends = [
            [row[name] for row in part if row.get(name) is not None]
            for part in (metrics[:_ENDS], metrics[-_ENDS:])
        ]
        if all(ends):
            rows.append([name, *(f"{fmean(end):.3f}" for end in ends)])
    text = f"{len(metrics)} steps of RL. First and last steps have different problems: see what is held out."
    return Section("RL", text, rows)


def held_out_section(found: dict[str, Change]) -> Section:
    """Return the table of held-out explanations before and after RL."""
    rows = [["held out", "before RL", "after RL", "change [95 % interval]", "problems"]]
    for name, change in found.items():
        rows.append([name, *change_cells(name, change), str(change.num_problems)])
    text = "Two explanations of each held-out problem by each teacher; changes are paired by problem."
    return Section("Held-out explanations before and after RL", text, rows)


def change_cells(name: str, change: Change) -> list[str]:
    """Return both means and the change, shares in per cent."""
    if name not in SHARES:
        return [f"{change.before:+.3f}", f"{change.after:+.3f}", str(change.difference)]
    mean, low, high = (
        100 * x for x in (change.difference.mean, change.difference.low, change.difference.high)
    )
    return [f"{100 * x:.1f} %" for x in (change.before, change.after)] + [
        f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] %"
    ]


def tokens_section(measures: Path) -> Section:
    """Return what show_traces has printed of the first held-out problem's explanations after RL."""
    lines = (measures / "tokens/logs/train.log").read_text(encoding="utf-8").split("\n")
    start = next((i for i, line in enumerate(lines) if line.startswith(_RULE)), len(lines))
    end = next((i for i, line in enumerate(lines) if i > start and line.startswith(_RULE)), len(lines))
    text = (
        "The first held-out problem, explained by the teacher after RL. In colours, and with its second "
        f"explanation: {measures / 'tokens/traces.html'}."
    )
    return Section("One explanation, token by token", text, (), [("", "\n".join(lines[start:end]).strip())])


def side_by_side(before: Sequence[Row], after: Sequence[Row]) -> Section:
    """Return the first explanation of the first held-out problems, by both teachers."""
    blocks = []
    firsts = {row["problem_id"]: row for row in reversed(after) if row["sample_index"] == 0}
    for row in [row for row in before if row["sample_index"] == 0][:SHOWN]:
        blocks.append((f"{row['question']} Solution: {row['solution']}", ""))
        for when, one in (("before RL", row), ("after RL", firsts[row["problem_id"]])):
            scores = one["breakdown"]
            caption = (
                f"{when}: reward {one['score']:+.2f}, r_SS {scores['r_ss']:+.2f}, r_KL {scores['r_kl']:+.2f}"
            )
            blocks.append((caption, one["explanation"].strip()))
    return Section(
        "Five explanations before and after RL", "The first held-out problems, first samples.", (), blocks
    )


def ranks_section(found: Sequence[Rank]) -> Section:
    """Return the table of students by rank, with the correlations."""
    rows = [["rank", "mean reward of its traces", *(f"gain, {name} [95 % interval]" for name in TEXTS)]]
    rows += [
        [str(one.rank), f"{one.reward:+.3f}", *(str(one.gains[name]) for name in TEXTS)] for one in found
    ]
    rewards = [one.reward for one in found]
    text = ", ".join(
        f"{rank_correlation(rewards, [one.gains[name].mean for one in found]):+.2f} ({name})"
        for name in TEXTS
    )
    text = (
        "RL's student, trained further on each rank; its gain is the log-likelihood per token that it "
        "gives to people's working and to the solution of held-out problems, above what it gave before. Rank "
        f"correlation (Spearman) of reward and gain over {len(found)} ranks: {text}. With four ranks it "
        "describes, and tests nothing."
    )
    return Section("Does the reward order students?", text, rows)


def ways_section(found: Sequence[Way]) -> Section:
    """Return the table of ways to learn from one teacher."""
    gains = [f"gain, {name} [95 % interval]; of each seed" for name in TEXTS]
    rows = [["learns from", "generated tokens", "minutes", *gains]]
    for one in found:
        cells = [
            f"{one.gains[name]}; {', '.join(f'{gain:+.3f}' for gain in one.by_seed[name])}" for name in TEXTS
        ]
        rows.append([one.name, f"{one.tokens:,.0f}", f"{one.seconds / 60:.1f}", *cells])
    text = (
        "RL's student learns from the teacher after RL, and from no words of people. Gains as above; "
        "intervals are over problems, with the mean of the seeds."
    )
    if len(found[0].by_seed[next(iter(TEXTS))]) > 1:
        for name in TEXTS:
            others = "; ".join(f"{way} {gap}" for way, gap in against_first(found, name).items())
            text += f" Against {found[0].name}, paired by seed, {name}: {others}."
    return Section("Three ways to learn from one teacher", text, rows)


def _markdown(section: Section) -> str:
    parts = [f"## {section.title}", section.text]
    if section.table:
        parts.append(markdown(section.table).rstrip())
    for caption, block in section.blocks:
        if caption:
            parts.append(f"**{caption}**")
        if block:
            parts.append(f"```\n{block.replace('```', '` ` `')}\n```")
    return "\n\n".join(parts) + "\n"
