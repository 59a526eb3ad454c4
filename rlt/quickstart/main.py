"""The quickstart: a toy world, a tiny base model, then the real stages from warm-up to students' answers.

    python -m rlt.quickstart --output results/quickstart --seed 0

Everything of a seed is in `OUTPUT/seed_N`: `world/` (problems), `base/` (the student, and what the warm-up
starts from), `pre_rl_model/` and `teacher_rl/` (run directories), `students/` (a pipeline: traces, students,
answers), `quickstart.md`, `.json` and `.png`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rlt.config.compose import compose
from rlt.config.stages import STAGES
from rlt.data.own_layout import prompt_text
from rlt.data.owners import STUDENT, TEACHER
from rlt.errors import ConfigError
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import tag_style
from rlt.io import write_json, write_text
from rlt.parser import Parser
from rlt.quickstart.base_model import BaseSettings, Corpus, make_base
from rlt.quickstart.plot import write_plot
from rlt.quickstart.report import (
    RESULT,
    WHAT_IT_SHOWS,
    Comparison,
    add_to_card,
    compare,
    evaluations,
    example,
    summary,
    table,
)
from rlt.quickstart.stages import choose_backend, interrupt_on_sigterm, run_stage
from rlt.quickstart.students import Students, read_students, students_summary, students_table
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import make_world, vocabulary
from rlt.reporting.progress import setup_logging
from rlt.rundir.metrics import read_metrics
from rlt.surroundings.place import settle
from rlt.surroundings.world import forget_processes

logger = logging.getLogger(__name__)

SFT, RL = "cfgs/run_cfg/quickstart_teacher_sft.yaml", "cfgs/run_cfg/quickstart_teacher_rl.yaml"
STUDENTS = "cfgs/run_cfg/quickstart_students.yaml"
NUM_TRAIN = 2000
BASE = BaseSettings()


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    output: Path
    seed: int = 0
    backend: str = "auto"
    problems: int = 64
    """Held-out problems."""
    overrides: tuple[str, ...] = ()
    """Further settings: of the teacher's two stages, and those under `pipeline` of the students' pipeline."""
    base: BaseSettings = BASE

    def __post_init__(self) -> None:
        if self.problems < 2:
            raise ConfigError(
                f"--problems={self.problems} is too few: an interval over held-out problems needs at least 2"
            )


@dataclass(frozen=True)
class Result:
    """What one seed shows: the teacher before and after RL, and the students of both."""

    teacher: Comparison
    students: Students

    @property
    def is_real(self) -> bool:
        """RL made the explanations better, and the student that learns from them."""
        return self.teacher.is_real and self.students.is_real


def run(options: Options) -> Result:
    """Run the quickstart for one seed and return its result."""
    directory = options.output / f"seed_{options.seed}"
    backend = choose_backend(options.backend)
    seconds: dict[str, float] = {}

    # 1. A world, and a base model that knows it.
    with _timed("world and base model", seconds):
        make_student(directory, options)

    # 2. The warm-up: explain like the corpus, which is mostly vague.
    common = [f"results_dir={directory}", f"seed={options.seed}"]
    of_sft, of_rl, of_students = split_overrides(options.overrides)
    with _timed("warm-up", seconds):
        run_stage(["./launch.sh", "1", SFT, *common, *of_sft], directory / "pre_rl_model/logs/train.log")

    # 3. RL: explain so that the student finds the solution.
    with _timed("RL", seconds):
        logger.info("generation back end: %s (%s)", backend.name, backend.reason)
        launcher = ["./launch_with_server.sh", "1", "1", RL]
        if backend.name == "transformers":
            launcher = ["./launch.sh", "1", RL, "generation.backend=transformers"]
        log_path = directory / "teacher_rl/logs/train.log"
        run_stage([*launcher, *common, *of_rl], log_path, on_gpus=backend.on_gpus)

    # 4. Students: what are the traces of both teachers worth?
    with _timed("traces and students", seconds):
        run_stage(["./launch.sh", STUDENTS, *common, *of_students], directory / "students/logs")

    # 5. The results.
    by_step = evaluations(directory / "teacher_rl")
    result = Result(compare(by_step), read_students(directory / "students"))
    metrics = read_metrics(directory / "teacher_rl/metrics.jsonl")
    plot = write_plot(directory / "quickstart.png", result.teacher, result.students, by_step, metrics)
    tables = (table(result.teacher), students_table(result.students))
    shown = example(by_step)
    verdicts = f"{summary(result.teacher)}\n\n{students_summary(result.students)}"
    write_json(directory / RESULT, asdict(result) | {"is_real": result.is_real})
    write_text(
        directory / "quickstart.md", "\n\n".join([*tables, verdicts, WHAT_IT_SHOWS, f"```\n{shown}\n```\n"])
    )
    for model in ("pre_rl_model", "teacher_rl", "students/student_before_rl", "students/student_after_rl"):
        add_to_card(directory / model)
    spent = ", ".join(f"{what} {time_:.0f} s" for what, time_ in seconds.items())
    _say(*tables, shown, verdicts, f"plot: {plot}\ntime: {spent}")
    return result


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return what is meant for the warm-up, for RL, and for the students' pipeline.

    Each of the teacher's stages gets what it reads; what neither reads goes to both, which refuse it.
    """
    of_students = [word for word in words if word.startswith("pipeline.")]
    of_teacher = [word for word in words if word not in of_students]
    return _read_by("teacher_sft", of_teacher), _read_by("teacher_rl", of_teacher), of_students


def _read_by(stage: str, words: Sequence[str]) -> list[str]:
    names = {word: word.lstrip("+~").partition("=")[0] for word in words}
    other = {"teacher_sft": "teacher_rl", "teacher_rl": "teacher_sft"}[stage]
    return [w for w in words if STAGES[stage].reads(names[w]) or not STAGES[other].reads(names[w])]


def make_student(directory: Path, options: Options) -> None:
    """Write the problems to `directory/world`, and base model and tokenizer to `directory/base`."""
    of_sft, of_rl, _ = split_overrides(options.overrides)
    warm_up = compose([SFT, f"results_dir={directory}", *of_sft])
    rl = compose([RL, f"results_dir={directory}", *of_rl])  # has both prompts
    tags = tag_style(rl.layout.tags)
    teacher_prompt, student_prompt = prompt_text(rl, TEACHER), prompt_text(rl, STUDENT)
    if teacher_prompt is None or student_prompt is None:
        raise ConfigError(f"`{STUDENT}` of {RL} must be a text: no row of the toy world brings a prompt.")
    if (warm_up.layout.tags, prompt_text(warm_up, TEACHER)) != (rl.layout.tags, teacher_prompt):
        raise ConfigError(
            f"{SFT} and {RL} differ in `layout`, but one base model serves both: make them equal"
        )
    tokenizer = build_tokenizer([*vocabulary(), teacher_prompt, student_prompt])
    world = make_world(options.seed, NUM_TRAIN, options.problems)
    world.write(directory / "world")
    corpus = Corpus(
        TeacherLayout(tokenizer, tags, teacher_prompt),
        StudentLayout(tokenizer, tags, student_prompt),
        held_out=frozenset(row.question for row in world.held_out),
        seed=options.seed,
    )
    was_there = make_base(directory / "base", tokenizer, corpus, options.base, options.seed)
    logger.info("base model: %s%s", directory / "base", " (made earlier, used again)" if was_there else "")


def main(words: Sequence[str], base: BaseSettings = BASE) -> int:
    """Run the quickstart as the command line says; return 0 only if it shows an improvement."""
    parser = Parser(prog="python -m rlt quickstart", description="Teacher and students on tiny models.")
    parser.add_argument("--output", type=Path, default=Path("results/quickstart"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of world, models and sampling")
    parser.add_argument("--backend", choices=("auto", "vllm", "transformers"), default="auto")
    parser.add_argument("--problems", type=int, default=64, help="held-out problems (at least 2)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="further settings of both teacher stages, or pipeline.…",
    )
    typed = parser.parse_args(words)
    setup_logging()
    interrupt_on_sigterm()
    settle(os.environ)
    forget_processes(os.environ, "quickstart")
    overrides = tuple(typed.overrides)
    result = run(Options(typed.output, typed.seed, typed.backend, typed.problems, overrides, base))
    return 0 if result.is_real else 1


@contextmanager
def _timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    logger.info("==== %s", what)
    start = time.monotonic()
    yield
    seconds[what] = time.monotonic() - start


def _say(*blocks: str) -> None:
    sys.stdout.write("\n" + "\n\n".join(blocks) + "\n")
    sys.stdout.flush()
