"""The paper's claims in miniature, in the toy world of hidden operators (hidden.py), over several seeds.

    python -m rlt.quickstart.claims --seeds 5 --parts models rivals

Everything of a seed is in `OUTPUT/seed_N`: `world/` (problems, the solver's traces), `base/` (the student,
and what the warm-up starts from), `solver/`, and a folder for each part, which is a pipeline
(cfgs/run_cfg/claims_NAME.yaml). What is finished is not repeated, so the same command continues after an
interruption. Tables of what is there: `OUTPUT/claims.md` and `claims.json` (claims_tables.py).
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlt.config.compose import compose
from rlt.data.own_layout import prompt_text
from rlt.data.owners import STUDENT, TEACHER
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import tag_style
from rlt.io import write_json, write_text
from rlt.models.load import load_tokenizer
from rlt.parser import Parser
from rlt.quickstart import hidden
from rlt.quickstart.base_model import BaseSettings, Corpus, Sample, make_base
from rlt.quickstart.claims_tables import PREFIX, write_tables
from rlt.quickstart.prefix import answers_after
from rlt.quickstart.stages import interrupt_on_sigterm, run_stage
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.records import problem_id
from rlt.reporting.progress import setup_logging
from rlt.surroundings.leaving import run_command

logger = logging.getLogger("rlt.quickstart.claims")  # __name__ is __main__ when it is run

RL = "cfgs/run_cfg/claims_teacher_rl.yaml"
PARTS = ("models", "rivals", "ablations", "ranks", "cold_start", "transfer", "larger", "three_ways")
"""Pipelines in the order they run in; the first makes what the others share."""
NUM_TRAIN, NUM_HELD_OUT = 1500, 128
BASE = BaseSettings(steps=600)
SOLVER = BaseSettings(hidden_size=192, num_heads=6, intermediate_size=384, steps=800, learning_rate=2e-3)
LARGE = replace(SOLVER, steps=600, learning_rate=BASE.learning_rate)


class SolverCorpus(Corpus):
    """What the larger solver learns from: short searches in the student's layout, nothing of a teacher."""

    def samples(self, teacher: Mapping[str, float], student: Mapping[str, float]) -> Iterator[Sample]:  # noqa: ARG002 - the base class's
        """Yield short searches."""
        while True:
            yield self.in_student_layout(self.row({"short": 1.0}))


def make_models(directory: Path, seed: int, *, with_large: bool) -> None:
    """Write the problems to `directory/world`, and what is trained from scratch beside it."""
    config = compose([RL, f"results_dir={directory}"])
    tags = tag_style(config.layout.tags)
    teacher_prompt, student_prompt = prompt_text(config, TEACHER), prompt_text(config, STUDENT)
    assert teacher_prompt is not None, "claims_teacher_rl has a prompt"
    assert student_prompt is not None, "claims_teacher_rl has a prompt"
    tokenizer = build_tokenizer([*hidden.vocabulary(), teacher_prompt, student_prompt])
    world = hidden.make_world(seed, NUM_TRAIN, NUM_HELD_OUT)
    if not (directory / "world/train.jsonl").is_file():
        world.write(directory / "world")  # decided by the seed
    for name, rows in (("transfer", world.train), ("transfer_held_out", world.held_out)):
        shown = [(hidden.show_second(row.question), row.solution, None) for row in rows]
        _write_if_new(directory / "world" / f"{name}.jsonl", _jsonl(shown))
    rng = random.Random(seed)
    faulty = [(row.question, row.solution, hidden.search(row.question, rng)) for row in world.train * 4]
    _write_if_new(directory / "world/faulty.jsonl", _jsonl(faulty))
    held_out = frozenset(row.question for row in world.held_out)
    teacher = TeacherLayout(tokenizer, tags, teacher_prompt)
    student = StudentLayout(tokenizer, tags, student_prompt)
    wanted: list[tuple[str, type[Corpus], BaseSettings]] = [
        ("base", Corpus, BASE),
        ("solver", SolverCorpus, SOLVER),
        *([("large", Corpus, LARGE)] if with_large else []),
    ]
    for name, kind, settings in wanted:
        corpus = kind(teacher, student, held_out, seed, hidden)
        was_there = make_base(directory / name, tokenizer, corpus, settings, seed)
        logger.info("%s%s", directory / name, " (made earlier, used again)" if was_there else "")
    if not (directory / PREFIX).is_file():
        prompted = StudentLayout(load_tokenizer(str(directory / "base")), tags, student_prompt)
        shares = answers_after(
            *(directory / "base", prompted, world.held_out, prefix_of),
            num_samples=2,
            max_tokens=144,
            seed=seed,
        )
        write_json(directory / PREFIX, shares)


def prefix_of(question: str) -> str:
    """Return how a search begins, the digits copied from the question: `7+9=`."""
    first, second, _, _ = hidden.parts(question)
    return f"{first}+{second}="


def solver_traces(answers: Path, problems: Path, *, only_right: bool) -> list[tuple[str, str, str | None]]:
    """Return the thoughts of an evaluation's first answers as traces of their problems.

    `only_right` keeps those whose answer is right: the filter of the paper's rivals. Answers without thought
    and solution in their tags have no trace.
    """
    rows = [json.loads(line) for line in problems.read_text().splitlines()]
    by_id = {problem_id(row["question"], row["solution"]): row for row in rows}
    found: list[tuple[str, str, str | None]] = []
    for line in (answers / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        thought, closed, _ = sample["text"].partition(tag_style("bespoke").thought.close)
        if not closed or (only_right and not sample["correct"]):
            continue
        problem = by_id[sample["problem_id"]]
        text = thought.replace(tag_style("bespoke").thought.open, "").strip()
        found.append((problem["question"], problem["solution"], text))
    return found


def write_solver_traces(directory: Path) -> None:
    """Write the solver's traces: of training problems the right ones, of held-out problems all."""
    for steps, name, only_right in (
        ("solver_answers", "solver_traces", True),
        ("solver_held_out", "solver_held_out", False),
    ):
        problems = directory / "world" / ("train.jsonl" if only_right else "held_out.jsonl")
        traces = solver_traces(directory / "models" / steps, problems, only_right=only_right)
        _write_if_new(directory / "world" / f"{name}.jsonl", _jsonl(traces))


def _jsonl(rows: Sequence[tuple[str, str, str | None]]) -> str:
    """Return questions and solutions, with explanations where there are some, as lines of JSON."""
    names = ("question", "solution", "explanation")
    dicts = [{k: v for k, v in zip(names, row, strict=True) if v is not None} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in dicts)


def _write_if_new(path: Path, text: str) -> None:
    """Write a file only where it says something else, so that what was read from it stays valid."""
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def run_seed(output: Path, seed: int, parts: Sequence[str], words: Sequence[str]) -> None:
    """Run the parts of a seed, each a pipeline; `words` go to all of them."""
    directory = output / f"seed_{seed}"
    make_models(directory, seed, with_large="larger" in parts)
    for part in parts:
        command = ["./launch.sh", f"cfgs/run_cfg/claims_{part}.yaml", f"results_dir={directory}"]
        run_stage([*command, f"seed={seed}", *words], directory / part / "logs")
        if part == "models":
            write_solver_traces(directory)


def main(words: Sequence[str]) -> int:
    """Run the claims as the command line says, and write tables of all seeds that are there."""
    parser = Parser(
        prog="python -m rlt claims", description="The paper's claims in miniature, over several seeds."
    )
    parser.add_argument("--output", type=Path, default=Path("results/claims"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="seeds, e.g. 0 1 2")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="pipelines to run")
    parser.epilog = "Further words KEY=VALUE are settings of every pipeline, e.g. pipeline.ignore_code=true."
    # Both lists end at the next flag, so settings would count as parts.
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    typed = parser.parse_args([word for word in words if word not in overrides])
    setup_logging()
    interrupt_on_sigterm()
    for part in typed.parts:  # a wrong word is found before minutes of a base model
        compose([f"cfgs/run_cfg/claims_{part}.yaml", *overrides])
    for seed in typed.seeds:
        run_seed(typed.output, seed, typed.parts, overrides)
    sys.stdout.write("\n" + write_tables(typed.output))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
