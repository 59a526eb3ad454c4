"""The quickstart's toy world: short chains of arithmetic, and three kinds of explanation for them.

A question is a chain of one-digit numbers with + and *, read strictly from left to right, of which
only the last digit counts: `7*9+7*3+4` has the solution `4`. Its explanations are *good* (every step,
right), *vague* (words only) or *faulty* (every step, at least one wrong). Most of the corpus is vague,
so a teacher that merely imitates it is mostly useless, and a better one is easy to recognise.

Several operations and not one or two, because a student that guesses the solution needs no teacher.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rlt.errors import DataError
from rlt.io import write_text

KINDS = {"good": 0.25, "vague": 0.72, "faulty": 0.03}
"""Share of each kind of explanation in the corpus."""
LESSONS = {"good": 0.9, "vague": 0.1}
"""The same while a base model learns to calculate, before it sees the corpus."""
STUDENT_KINDS, STUDENT_LESSONS = KINDS, LESSONS
"""In the student's layout the kinds have the same shares."""
UNSHOWN = 0.0
"""Every teacher sees the solution."""
NUM_OPERANDS = 5

_OPENINGS = ("We go from left to right", "We take the numbers in order", "We read the question with care")
_MIDDLES = ("and keep the last digit", "and do every step", "and drop what we do not need")
_CLOSINGS = ("This is easy.", "The rest is clear.", "Then we are done.", "So we find the digit.")

_STEP = re.compile(r"[0-9][+*][0-9]=[0-9]")


@dataclass(frozen=True)
class ToyRow:
    """A problem with one explanation of a known kind; a line of the world's files."""

    question: str
    solution: str
    reasoning_trace: str
    kind: str


def draw_questions(rng: random.Random, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield random chains, e.g. `7*9+7*3+4`, none of them in `without`."""
    while True:
        first, *rest = (str(rng.randrange(10)) for _ in range(NUM_OPERANDS))
        question = first + "".join(rng.choice("+*") + digit for digit in rest)
        if question not in without:
            yield question


def draw_distinct(rng: random.Random, num: int, without: frozenset[str] = frozenset()) -> list[str]:
    """Return `num` different questions, none of them in `without`."""
    drawn: dict[str, None] = {}
    for question in draw_questions(rng, without):
        drawn[question] = None
        if len(drawn) == num:
            break
    return list(drawn)


def apply(left: int, operator: str, right: int) -> int:
    """Return the last digit of `left operator right`."""
    return (left + right if operator == "+" else left * right) % 10


def solve(question: str) -> str:
    """Return the last digit of a chain, read from left to right."""
    return stepwise(question)[-1]


def stepwise(question: str, errors: Mapping[int, int] | None = None) -> str:
    """Return a chain step by step, one a line: `7*9=3`, `3+7=0`, …; `errors` adds to the result of a step."""
    value, steps = int(question[0]), []
    for index, (operator, digit) in enumerate(zip(question[1::2], question[2::2], strict=True)):
        result = (apply(value, operator, int(digit)) + (errors or {}).get(index, 0)) % 10
        steps.append(f"{value}{operator}{digit}={result}")
        value = result
    return "\n".join(steps)


def explain(question: str, kind: str, rng: random.Random) -> str:
    """Return a random explanation of the given kind."""
    if kind == "vague":
        return f"{rng.choice(_OPENINGS)} {rng.choice(_MIDDLES)}. {rng.choice(_CLOSINGS)}"
    if kind == "good":
        return stepwise(question)
    wrong = rng.sample(range(len(question) // 2), k=rng.randint(1, 2))
    return stepwise(question, {step: rng.randrange(1, 10) for step in wrong})


def classify(question: str, explanation: str) -> str:
    """Return the kind of an explanation: good, faulty (has steps, but not the right chain) or vague."""
    if explanation.strip() == stepwise(question):
        return "good"
    return "faulty" if _STEP.search(explanation) else "vague"


def draw_row(question: str, rng: random.Random, shares: Mapping[str, float]) -> ToyRow:
    """Return a question with an explanation whose kind is drawn by `shares`."""
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    return ToyRow(question, solve(question), explain(question, kind, rng), kind)


def vocabulary() -> list[str]:
    """Return the sentences that hold every word of the world's explanations."""
    return [*_OPENINGS, *_MIDDLES, *_CLOSINGS]


@dataclass(frozen=True)
class World:
    """Problems to train on with their explanations, and problems held out."""

    train: tuple[ToyRow, ...]
    held_out: tuple[ToyRow, ...]

    def write(self, directory: Path) -> None:
        """Write `train.jsonl` and `held_out.jsonl`."""
        for name, rows in (("train", self.train), ("held_out", self.held_out)):
            write_text(directory / f"{name}.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in rows))


def make_world(seed: int, num_train: int, num_held_out: int) -> World:
    """Return the world of a seed; no problem of it is both for training and held out."""
    if min(num_train, num_held_out) < 1 or num_train + num_held_out > 10**NUM_OPERANDS:
        raise DataError(
            f"a toy world needs at least one problem of each kind and at most {10**NUM_OPERANDS} together, "
            f"got {num_train} to train on and {num_held_out} held out"
        )
    rng = random.Random(seed)
    held_out = draw_distinct(rng, num_held_out)
    train = draw_distinct(rng, num_train, without=frozenset(held_out))
    rows = [draw_row(question, rng, KINDS) for question in (*train, *held_out)]
    return World(tuple(rows[:num_train]), tuple(rows[num_train:]))
