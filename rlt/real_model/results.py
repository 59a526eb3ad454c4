"""What the runs of a folder show, read from their files: kinds of explanations, before and after RL, ranks.

Every interval is over problems: the samples of one problem are averaged first, and differences are paired
by problem.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, fmean
from typing import Any

from rlt.errors import DataError
from rlt.evaluation.intervals import Interval, paired_interval, paired_share_interval
from rlt.formats.leakage import states_first
from rlt.real_model.problems import KINDS

Row = dict[str, Any]
Measure = Callable[[Row], float | None]

_NUMBER = re.compile(r"\d+(?:\.\d+)?")

MEASURES: dict[str, Measure] = {
    "reward": lambda row: row["score"],
    "r_SS": lambda row: row["breakdown"]["r_ss"],
    "r_KL": lambda row: row["breakdown"]["r_kl"],
    "tokens": lambda row: row["num_tokens"],
    "closes its tag": lambda row: float(row["well_formed"]),
    "states the solution first": lambda row: _share(states_first(*_texts(row))),
    "names the solution": lambda row: float(
        row["solution"] in _NUMBER.findall(row["explanation"].replace(",", ""))
    ),
}
"""Under the name of the table. The last three are shares of explanations."""
SHARES = ("closes its tag", "states the solution first", "names the solution")
RANKS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Kind:
    """One kind of explanation in the eyes of the student; means over problems."""

    name: str
    r_ss: float
    r_kl: float
    reward: float
    above_by_r_ss: int
    """Problems in which r_SS prefers it to the row's own working."""
    above_by_reward: int
    difference: Interval | None
    """Of its reward from that of the row's own working; None for that itself."""


@dataclass(frozen=True)
class Change:
    """A measure of held-out explanations before and after RL."""

    before: float
    after: float
    difference: Interval
    num_problems: int
    """For which it is defined on both sides."""


@dataclass(frozen=True)
class Rank:
    """The student of one rank."""

    rank: int
    reward: float
    """The mean of its traces."""
    gains: Mapping[str, Interval]
    """Over the base, in log-likelihood per token of held-out texts."""


TEXTS: dict[str, Measure] = {
    "working": lambda row: -row["breakdown"]["r_kl_mean"],
    "solution": lambda row: row["breakdown"]["r_ss_mean"],
}
"""The texts whose likelihood under a student counts: without a teacher r_KL is its surprise."""


def read_rows(path: Path) -> list[Row]:
    """Return the scored traces of a run; every one must have a score."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if unscored := [row for row in rows if row["score"] is None]:
        row = unscored[0]
        raise DataError(
            f"{path}: explanation {row['sample_index']} of problem {row['problem_id']} has no score "
            f"({row['why']}), so means over problems would not be comparable: give problems that "
            "fit the context"
        )
    return rows


def kinds(rows: Sequence[Row]) -> list[Kind]:
    """Return what the student makes of each kind; a row's sample_index is its kind."""
    by_kind: dict[int, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_kind[row["sample_index"]][row["problem_id"]] = row
    own = by_kind[0]
    found = []
    for place, name in enumerate(KINDS):
        mine = by_kind[place]
        mean, reward = _mean_of(mine), MEASURES["reward"]
        found.append(
            Kind(
                name,
                *(mean(MEASURES[measure]) for measure in ("r_SS", "r_KL", "reward")),
                above_by_r_ss=_num_above(mine, own, MEASURES["r_SS"]),
                above_by_reward=_num_above(mine, own, reward),
                difference=paired_interval(
                    by_problem([*own.values()], reward), by_problem([*mine.values()], reward)
                )
                if place
                else None,
            )
        )
    return found


def changes(before: Sequence[Row], after: Sequence[Row]) -> dict[str, Change]:
    """Return every measure of both teachers' explanations of the same problems."""
    found = {}
    for name, measure in MEASURES.items():
        old, new = by_problem(before, measure), by_problem(after, measure)
        both = sorted(old.keys() & new.keys())
        if len(both) < 2:
            continue  # no interval: the measure is not defined for these problems
        old, new = {key: old[key] for key in both}, {key: new[key] for key in both}
        difference = (paired_share_interval if name in SHARES else paired_interval)(old, new)
        found[name] = Change(fmean(old.values()), fmean(new.values()), difference, len(both))
    return found


def ranks(measures: Path) -> list[Rank]:
    """Return the students of the ranks, read from the directory of the second pipeline."""
    base = read_rows(measures / "likelihood_base/scores.jsonl")
    found = []
    for rank in RANKS:
        lines = (measures / f"rank_{rank}/traces.jsonl").read_text(encoding="utf-8").split("\n")
        scores = [row["score"] for line in lines if line and (row := json.loads(line))["selected"]]
        own = read_rows(measures / f"likelihood_{rank}/scores.jsonl")
        gains = {
            name: paired_interval(by_problem(base, measure), by_problem(own, measure))
            for name, measure in TEXTS.items()
        }
        found.append(Rank(rank, fmean(scores), gains))
    return found


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation; nan where all values of one side are equal."""
    places = [_ranked(values) for values in (first, second)]
    return float("nan") if any(len(set(of)) == 1 for of in places) else correlation(*places)


def by_problem(rows: Sequence[Row], measure: Measure) -> dict[str, float]:
    """Return the mean of a measure over each problem's samples, without those for which it is not defined."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if (value := measure(row)) is not None:
            values[row["problem_id"]].append(value)
    return {key: fmean(group) for key, group in values.items()}


def _mean_of(rows: Mapping[str, Row]) -> Callable[[Measure], float]:
    return lambda measure: fmean(by_problem([*rows.values()], measure).values())


def _num_above(mine: Mapping[str, Row], own: Mapping[str, Row], measure: Measure) -> int:
    ours, theirs = by_problem([*mine.values()], measure), by_problem([*own.values()], measure)
    return sum(ours[key] > theirs[key] for key in own)


def _ranked(values: Sequence[float]) -> list[float]:
    """Return each value's place among all; equal values share the mean of theirs."""
    return [sum(x < value for x in values) + (sum(x == value for x in values) + 1) / 2 for value in values]


def _share(is_true: bool | None) -> float | None:
    return None if is_true is None else float(is_true)


def _texts(row: Row) -> tuple[str, str, str]:
    return row["question"], row["solution"], row["explanation"]
