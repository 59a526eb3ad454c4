"""Tables of the claims: what each seed's pipelines left, as means over seeds with intervals paired by seed.

The seeds are the units: each has problems, models and samples of its own. With five of them an interval is
Student's with four degrees of freedom. A part that has not run has no table, and a seed without it does
not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlt.evaluation.intervals import Interval, mean_interval, paired_interval
from rlt.evaluation.runs import read_shares
from rlt.io import write_json, write_text
from rlt.quickstart import hidden
from rlt.quickstart.report import percent, percent_interval
from rlt.rundir.cost import Cost, cost_of, total
from rlt.text import markdown

PREFIX = "prefix.json"
"""In a seed's folder: the base's shares of right answers with the beginning of its thought given."""
BySeed = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A line of a table: a student, and where its numbers are in a seed's folder."""

    name: str
    answers: str | None = None
    """Run directory of its evaluation."""
    rewards: str | None = None
    """Run directory of the scores of its teacher's explanations of held-out problems, or of its traces."""
    r_ss_alone: bool = False
    """No teacher wrote the explanations, so that their r_KL says nothing."""
    best_of_all: bool = False
    """Of a problem's explanations the one with the highest reward counts."""
    cost: tuple[str, ...] = ()
    """Run directories that made the student, whose time and generated tokens are summed."""


@dataclass(frozen=True)
class Table:
    """A table of the page, whose last row of `rows` that is named `against` the others are compared with."""

    part: str
    title: str
    rows: tuple[Row, ...]
    against: str


_RIVALS = "rivals"
RL = Row("the RL teacher", "rivals/answers_rl", "rivals/reward_rl")
WARM = Row("the warm-up teacher", "rivals/answers_warm", "rivals/reward_warm")
SOLVER = Row(
    "the larger solver, right answers only", "rivals/answers_solver", "rivals/reward_solver", r_ss_alone=True
)
BASE = Row("none: the base", "rivals/answers_base")
_HALF = ("three_ways/half", "three_ways/sft_half")
TABLES = (
    Table(
        _RIVALS,
        "Rivals and controls",
        (
            BASE,
            Row("none: the base after a prefix of a search", PREFIX),
            WARM,
            Row(
                "the warm-up teacher, best of 4 by reward",
                "rivals/answers_best",
                "rivals/reward_warm",
                best_of_all=True,
            ),
            Row("the RL teacher without the solution", "rivals/answers_unshown", "rivals/reward_unshown"),
            SOLVER,
            RL,
        ),
        RL.name,
    ),
    Table(
        "ablations",
        "Ablations of the reward",
        (
            RL,
            Row("RL without r_KL", "ablations/answers_no_kl", "ablations/reward_no_kl"),
            Row("RL without min and max", "ablations/answers_no_min_max", "ablations/reward_no_min_max"),
        ),
        RL.name,
    ),
    Table(
        "ranks",
        "Ranks within one kind",
        tuple(
            Row(f"faulty searches, rank {n} of 4", f"ranks/answers_{n}", f"ranks/rank_{n}") for n in (1, 4)
        ),
        "faulty searches, rank 1 of 4",
    ),
    Table(
        "cold_start",
        "Cold start, then RL of the student",
        (
            Row("base, then RL", "cold_start/answers_base"),
            Row("student of the solver, then RL", "cold_start/answers_solver"),
            Row("student of the RL teacher, then RL", "cold_start/answers_rl"),
        ),
        "student of the RL teacher, then RL",
    ),
    Table(
        "transfer",
        "Transfer to another task",
        (
            Row("none: the base", "transfer/answers_base"),
            Row("base, then RL on the task", "transfer/answers_direct_rl"),
            Row("the warm-up teacher", "transfer/answers_warm", "transfer/reward_warm"),
            Row("the RL teacher", "transfer/answers_rl", "transfer/reward_rl"),
        ),
        "the RL teacher",
    ),
    Table(
        "larger",
        "A student larger than its teacher",
        (
            Row("none: the larger base", "larger/answers_base"),
            Row("the larger solver, right answers only", "larger/answers_solver"),
            Row("the RL teacher", "larger/answers_rl"),
        ),
        "the RL teacher",
    ),
    Table(
        "three_ways",
        "Three ways to learn from the RL teacher",
        (
            BASE,
            Row("its traces", RL.answers, cost=("rivals/traces_rl", "rivals/student_rl")),
            Row("half of its traces", "three_ways/answers_sft_half", cost=_HALF),
            Row("on-policy distillation", "three_ways/answers_opd", cost=("three_ways/opd",)),
            Row(
                "on-policy distillation of the thought alone",
                "three_ways/answers_thought",
                cost=("three_ways/thought",),
            ),
            Row(
                "half of its traces, then on-policy distillation",
                "three_ways/answers_both",
                cost=(*_HALF, "three_ways/both"),
            ),
            Row(
                "on-policy distillation, twice as long",
                "three_ways/answers_longer",
                cost=("three_ways/longer",),
            ),
        ),
        "its traces",
    ),
)
_COSTS: dict[str, Callable[[Cost], float]] = {
    "generated tokens": lambda cost: cost.tokens,
    "seconds": lambda cost: cost.seconds,
}
_PARTS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "r_SS": lambda row: row["breakdown"]["r_ss"],
    "r_KL": lambda row: row["breakdown"]["r_kl"],
    "reward": lambda row: row["score"],
}


def seeds_of(output: Path) -> dict[int, Path]:
    """Return the folders of seeds by seed."""
    folders = (path for path in sorted(output.glob("seed_*")) if path.is_dir())  # logs are beside them
    return {int(path.name.removeprefix("seed_")): path for path in folders}


def accuracy(path: Path) -> float | None:
    """Return the mean share of right answers of an evaluation, None where it has not been."""
    if path.suffix == ".json":
        return fmean(json.loads(path.read_text()).values()) if path.is_file() else None
    if not (path / "summary.json").is_file():
        return None
    (shares,) = read_shares(path).values()
    return fmean(shares.values())


def rewards(path: Path, *, best_of_all: bool) -> dict[str, float] | None:
    """Return the mean reward and its parts over problems, and the kinds' shares; None without scores.

    Every problem counts alike: with the mean of its explanations, or with the best of them.
    """
    files = (path / "scores.jsonl", path / "traces.jsonl")
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        is_chosen = file.name == "scores.jsonl" or row["selected"]
        if is_chosen and row["score"] is not None:
            groups.setdefault(row["problem_id"], []).append(row)
    if best_of_all:
        groups = {key: [max(rows, key=lambda row: row["score"])] for key, rows in groups.items()}
    found: dict[str, float] = {}
    for name, part in _PARTS.items():
        values = [fmean(part(row) for row in rows) for rows in groups.values()]
        found[name] = fmean(values)
    kinds = [
        hidden.classify(hidden.hide(row["question"]), row["explanation"])
        for rows in groups.values()
        for row in rows
    ]
    return found | {kind: kinds.count(kind) / len(kinds) for kind in sorted(set(kinds))}


def collect(table: Table, seeds: Mapping[int, Path]) -> dict[str, dict[str, BySeed]]:
    """Return by row and measure the values of the seeds in which every row has been evaluated."""
    found: dict[str, dict[str, BySeed]] = {row.name: {} for row in table.rows}
    for seed, directory in seeds.items():
        right = {row.name: accuracy(directory / row.answers) for row in table.rows if row.answers}
        if any(value is None for value in right.values()):
            continue
        for row in table.rows:
            of_row = found[row.name]
            if (value := right.get(row.name)) is not None:
                of_row.setdefault("right", {})[str(seed)] = value
            if row.cost:
                took = total(cost_of(directory / run) for run in row.cost)
                for name, cost in _COSTS.items():
                    of_row.setdefault(name, {})[str(seed)] = cost(took)
            scores = row.rewards and rewards(directory / row.rewards, best_of_all=row.best_of_all)
            for name, number in (scores or {}).items():
                if not (row.r_ss_alone and name in ("r_KL", "reward")):
                    of_row.setdefault(name, {})[str(seed)] = number
    return found


def table_text(table: Table, values: Mapping[str, Mapping[str, BySeed]]) -> str:
    """Return a table as markdown: means over seeds, and the lead of one row over the others.

    A column that says nothing of any row is not shown.
    """
    head = ("traces of", "right answers", f"lead of {table.against}", *_PARTS, "kinds", *_COSTS)
    best = values[table.against].get("right", {})
    lines: list[tuple[str, ...]] = [head]
    for row in table.rows:
        of_row = values[row.name]
        right = of_row.get("right", {})
        lead = ""
        if row.name != table.against and len(right) > 1:
            lead = percent_interval(paired_interval(right, best))
        means = {name: fmean(by_seed.values()) for name, by_seed in of_row.items() if name != "right"}
        parts = [f"{means[part]:+.2f}" if part in means else "" for part in _PARTS]
        costs = [f"{means[cost]:,.0f}" if cost in means else "" for cost in _COSTS]
        kinds = {name: share for name, share in means.items() if name not in (*_PARTS, *_COSTS)}
        lines.append(
            (row.name, _accuracy_cell(list(right.values())), lead, *parts, _kinds_cell(kinds), *costs)
        )
    shown = [column for column in range(len(head)) if any(line[column] for line in lines[1:])]
    return markdown([tuple(line[column] for column in shown) for line in lines]).rstrip()


def _kinds_cell(shares: Mapping[str, float]) -> str:
    most = sorted(shares.items(), key=lambda kind: -kind[1])[:3]
    return ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in most)


def seed_text(table: Table, values: Mapping[str, Mapping[str, BySeed]]) -> str:
    """Return the right answers of each seed as markdown."""
    seeds = sorted({seed for of_row in values.values() for seed in of_row.get("right", {})}, key=int)
    lines = [("right answers", *(f"seed {seed}" for seed in seeds))]
    for row in table.rows:
        right = values[row.name].get("right", {})
        lines.append((row.name, *(percent(right[seed]) if seed in right else "" for seed in seeds)))
    return markdown(lines).rstrip()


def _accuracy_cell(shares: Sequence[float]) -> str:
    if len(shares) < 2:
        return percent(shares[0]) if shares else ""
    interval: Interval = mean_interval(shares)
    low, high = max(0.0, interval.low), min(1.0, interval.high)  # Student's t knows no bounds
    return f"{percent(interval.mean)} [{100 * low:.1f}, {100 * high:.1f}]"


def write_tables(output: Path) -> str:
    """Return all tables as markdown, having written them to claims.md and their numbers to claims.json."""
    seeds = seeds_of(output)
    blocks, numbers = [f"Chance: {percent(hidden.CHANCE)}."], {}
    for table in TABLES:
        values = collect(table, seeds)
        if not values[table.against].get("right"):
            continue
        blocks += [f"### {table.title}", table_text(table, values), seed_text(table, values)]
        numbers[table.part] = values
    text = "\n\n".join(blocks) + "\n"
    write_text(output / "claims.md", text)
    write_json(output / "claims.json", {"chance": hidden.CHANCE, "tables": numbers})
    return text
