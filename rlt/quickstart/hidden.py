"""A toy world in which the solution is at stake: hidden operators, to be searched for, or copied from it.

A question such as `7?9?3=5` hides two operators of +, - and *, read from left to right, of which only the
last digit counts. Exactly one of the nine pairs fits; the solution is its number: `++` is 1, `+-` is 2, and
so on to `**`, which is 9. A guess is right in 1 of 9 cases.

A pair is hard to find at a glance, and easy to write once the solution is known. So there are several right
explanations, and a student that reads any of them finds the solution:

* *search*: the pairs in order, each compared with the target, to the one that fits. Students can learn it.
* *direct*: the right pair alone, as if it had been guessed. A student that imitates this has to guess.
* *announced*: a sentence with the right operators; *padded*: the same before many vague words.

Students can solve *easy* questions, which show the first operator (`7-9?3=5`), by trying the second ones. A
*guess* has the steps of any pair, and that pair's number for a solution, mostly a wrong one: students who
know no better write them. *vague* ones have words only; *faulty* ones calculate, but for a wrong pair or with
wrong results. A solver that knows no teacher's layout writes *short* searches, which skip half of the steps.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product

from rlt.errors import DataError
from rlt.quickstart.world import ToyRow, World

OPERATORS = "+-*"
PAIRS = tuple(first + second for first, second in product(OPERATORS, repeat=2))
"""The solution is a pair's place, counted from 1."""
CHANCE = 1 / len(PAIRS)

LESSONS = {"search": 0.55, "direct": 0.2, "announced": 0.08, "vague": 0.07, "padded": 0.1}
"""What a base reads in the teacher's layout while it learns to calculate."""
KINDS = {"vague": 0.44, "search": 0.2, "direct": 0.12, "announced": 0.08, "padded": 0.08, "faulty": 0.08}
"""Share of each kind of explanation in the corpus, and in the teacher's layout."""
STUDENT_LESSONS = {
    "vague": 0.15,
    "guess": 0.25,
    "easy": 0.3,
    "direct": 0.05,
    "announced": 0.08,
    "padded": 0.08,
    "search": 0.09,
}
STUDENT_KINDS = {
    "vague": 0.62,
    "guess": 0.1,
    "easy": 0.2,
    "direct": 0.02,
    "announced": 0.02,
    "padded": 0.02,
    "search": 0.02,
}
"""The same in the student's layout: it reads every kind, solves easy questions, and hardly ever searches."""
UNSHOWN = 0.35
"""Share of the teacher's rows without the solution, so that the control has seen such prompts, too."""

_OPENINGS = ("We try what we can", "We look at the numbers", "We read the question with care")
_MIDDLES = ("and find the signs", "and think of every sign", "and drop what we do not need")
_CLOSINGS = ("This is easy.", "The rest is clear.", "Then we are done.", "So we see it.")
_STEP = re.compile(r"[0-9][-+*][0-9]=[0-9]")
_ANNOUNCED = re.compile(r"The signs are [-+*] and [-+*]\.")
_MOST_PADDING = 3
_WRONG_RESULT = 0.1


def apply(left: int, operator: str, right: int) -> int:
    """Return the last digit of `left operator right`, from 0 to 9 for negative values, too."""
    return {"+": left + right, "-": left - right, "*": left * right}[operator] % 10


def parts(question: str) -> tuple[int, int, int, int]:
    """Return the three digits of a question, and its target."""
    first, second, third, target = (int(question[place]) for place in (0, 2, 4, 6))
    return first, second, third, target


@cache
def all_questions() -> Mapping[str, str]:
    """Return every question that exactly one pair fits, with that pair; 3,338 of them."""
    found = {}
    for a, b, c in product(range(10), repeat=3):
        pairs: dict[int, list[str]] = {}
        for pair in PAIRS:
            pairs.setdefault(apply(apply(a, pair[0], b), pair[1], c), []).append(pair)
        found |= {f"{a}?{b}?{c}={target}": fit[0] for target, fit in pairs.items() if len(fit) == 1}
    return found


def draw_questions(rng: random.Random, without: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield random questions, e.g. `7?9?3=5`, none of them in `without`."""
    left = sorted(all_questions().keys() - without)
    while True:
        yield rng.choice(left)


def solve(question: str) -> str:
    """Return the number of the pair that fits."""
    return str(PAIRS.index(all_questions()[question]) + 1)


def show_first(question: str) -> str:
    """Return the easy question behind a question, its first operator shown: `7-9?3=5`."""
    return question.replace("?", all_questions()[question][0], 1)


def show_second(question: str) -> str:
    """Return the question of the transfer task, the second operator shown: `7?9-3=5`."""
    return f"{question[:3]}{all_questions()[question][1]}{question[4:]}"


def hide(question: str) -> str:
    """Return the question behind one that shows an operator, or the question itself."""
    return f"{question[0]}?{question[2]}?{question[4:]}"


def direct(question: str, pair: str | None = None) -> str:
    """Return the two steps of a pair, by default of the one that fits: `7-9=8,8-3=5`."""
    a, b, c, _ = parts(question)
    first, second = pair or all_questions()[question]
    value = apply(a, first, b)
    return f"{a}{first}{b}={value},{value}{second}{c}={apply(value, second, c)}"


def search(question: str, errors: random.Random | None = None) -> str:
    """Return the pairs in their order up to the one that fits, a line for each first operator.

    The target is taken from each result, so that 0 is the end: tiny models learn to calculate, hardly to
    compare two digits (docs/claims.md).

    With `errors` results are wrong now and then, and the end comes anywhere.
    """
    a, b, c, target = parts(question)
    steps_left = errors.randrange(2, 12) if errors else 12
    lines = []
    for first in OPERATORS:
        value = apply(a, first, b)
        steps = [f"{a}{first}{b}={value}"]
        steps_left -= 1
        for second in OPERATORS:
            result = apply(value, second, c)
            steps_left -= 1
            if errors and errors.random() < _WRONG_RESULT:
                result = (result + errors.randrange(1, 10)) % 10
            steps.append(f"{value}{second}{c}={result}-{target}={apply(result, '-', target)}")
            is_last = steps_left <= 0 if errors else result == target
            if is_last:
                return "\n".join([*lines, ",".join(steps)])
        lines.append(",".join(steps))
    return "\n".join(lines)


def easy(question: str) -> str:
    """Return how students solve the easy question: the second operators in order up to the one that fits."""
    first = all_questions()[question][0]
    start = f"{question[0]}{first}{question[2]}="
    return next(line for line in search(question).split("\n") if line.startswith(start))


def short(question: str) -> str:
    """Return the search as the solver writes it: of each second step the result alone, `7-9=8:15`."""
    lines = []
    for line in search(question).split("\n"):
        first, *others = line.split(",")
        results = "".join(step.partition("=")[2][0] for step in others)
        lines.append(f"{first}:{results}")
    return "\n".join(lines)


def announced(question: str) -> str:
    """Return a sentence with the operators that fit."""
    first, second = all_questions()[question]
    return f"The signs are {first} and {second}."


def vague(rng: random.Random, sentences: int = 1) -> str:
    """Return words that say nothing of the question."""
    return " ".join(
        f"{rng.choice(_OPENINGS)} {rng.choice(_MIDDLES)}. {rng.choice(_CLOSINGS)}" for _ in range(sentences)
    )


def explain(question: str, kind: str, rng: random.Random) -> str:
    """Return a random explanation of the given kind."""
    if kind == "vague":
        return vague(rng)
    if kind == "padded":
        return f"{announced(question)} {vague(rng, rng.randint(1, _MOST_PADDING))}"
    if kind == "faulty":
        wrong = [pair for pair in PAIRS if pair != all_questions()[question]]
        return direct(question, rng.choice(wrong)) if rng.random() < 0.5 else search(question, rng)
    return {"search": search, "direct": direct, "announced": announced, "short": short}[kind](question)


def classify(question: str, explanation: str) -> str:
    """Return the kind of an explanation; `misannounced` are the wrong operators in a sentence.

    Where the first pair fits, searching it and knowing it are the same text, which counts as search.
    """
    text = explanation.strip()
    for kind, right in (("search", search), ("direct", direct), ("announced", announced), ("short", short)):
        if text == right(question):
            return kind
    if _STEP.search(text):
        return "faulty"
    if text.startswith(announced(question)):
        return "padded"
    return "misannounced" if _ANNOUNCED.search(text) else "vague"


def draw_row(question: str, rng: random.Random, shares: Mapping[str, float]) -> ToyRow:
    """Return a question with an explanation whose kind is drawn by `shares`.

    A guess has a solution of its own, and an easy row its first operator shown.
    """
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    if kind == "guess":
        pair = rng.choice(PAIRS)
        return ToyRow(question, str(PAIRS.index(pair) + 1), direct(question, pair), kind)
    if kind == "easy":
        return ToyRow(show_first(question), solve(question), easy(question), kind)
    return ToyRow(question, solve(question), explain(question, kind, rng), kind)


def vocabulary() -> list[str]:
    """Return the sentences that hold every word of the world's explanations."""
    return [*_OPENINGS, *_MIDDLES, *_CLOSINGS, "The signs are + and -."]


def make_world(seed: int, num_train: int, num_held_out: int) -> World:
    """Return the world of a seed; no problem of it is both for training and held out."""
    questions = sorted(all_questions())
    if min(num_train, num_held_out) < 1 or num_train + num_held_out > len(questions):
        raise DataError(
            f"this toy world has {len(questions)} problems and needs at least one of each kind, got "
            f"{num_train} to train on and {num_held_out} held out"
        )
    rng = random.Random(seed)
    rng.shuffle(questions)
    rows = [draw_row(question, rng, KINDS) for question in questions[: num_train + num_held_out]]
    return World(tuple(rows[num_held_out:]), tuple(rows[:num_held_out]))
