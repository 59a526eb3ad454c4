"""The quickstart: a toy world, a tiny base model, then the real warm-up and the real RL, and what came of it.

    python -m rlt.quickstart --output results/quickstart --seed 0

Everything of a seed is in `OUTPUT/seed_N`: `world/` (problems), `base/` (the student, and what the warm-up
starts from), `pre_rl_model/` and `teacher_rl/` (run directories), `quickstart.md`, `.json` and `.png`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlt.config.compose import compose
from rlt.errors import ConfigError, RLTError
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.quickstart.base_model import BaseSettings, Corpus, make_base
from rlt.quickstart.plot import write_plot
from rlt.quickstart.report import Comparison, compare, evaluations, example, summary, table, write_files
from rlt.quickstart.stages import choose_backend, interrupt_on_sigterm, run_stage
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import make_world, vocabulary
from rlt.reporting.metrics import read_metrics
from rlt.reporting.progress import setup_logging

logger = logging.getLogger(__name__)

SFT, RL = "cfgs/run_cfg/quickstart_teacher_sft.yaml", "cfgs/run_cfg/quickstart_teacher_rl.yaml"
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
    """Further settings for both stages, e.g. `trainer.max_steps=5`."""
    base: BaseSettings = BASE

    def __post_init__(self) -> None:
        if self.problems < 2:
            raise ConfigError(
                f"--problems={self.problems} is too few: an interval over held-out problems needs at least 2"
            )


def run(options: Options) -> Comparison:
    """Return before and after RL for one seed, having done everything that leads there."""
    directory = options.output / f"seed_{options.seed}"
    backend = choose_backend(options.backend)
    seconds: dict[str, float] = {}

    # 1. A world, and a base model that knows it.
    with _timed("world and base model", seconds):
        make_student(directory, options)

    # 2. The warm-up: explain like the corpus, which is mostly vague.
    common = [f"results_dir={directory}", f"seed={options.seed}", *options.overrides]
    with _timed("warm-up", seconds):
        run_stage(["./launch.sh", "1", SFT, *common], directory / "pre_rl_model/logs/train.log")

    # 3. RL: explain so that the student finds the solution.
    with _timed("RL", seconds):
        logger.info("generation back end: %s (%s)", backend.name, backend.reason)
        launcher = ["./launch_with_server.sh", "1", "1", RL]
        if backend.name == "transformers":
            launcher = ["./launch.sh", "1", RL, "generation.backend=transformers"]
        run_stage([*launcher, *common], directory / "teacher_rl/logs/train.log", on_gpus=backend.on_gpus)

    # 4. What came of it.
    by_step = evaluations(directory / "teacher_rl")
    comparison = compare(by_step)
    write_files(comparison, by_step, directory)
    metrics = read_metrics(directory / "teacher_rl/metrics.jsonl")
    plot = write_plot(directory / "quickstart.png", comparison, by_step, metrics)
    spent = ", ".join(f"{what} {time_:.0f} s" for what, time_ in seconds.items())
    _say(table(comparison), example(by_step), summary(comparison), f"plot: {plot}\ntime: {spent}")
    return comparison


def make_student(directory: Path, options: Options) -> None:
    """Write the problems to `directory/world`, and base model and tokenizer to `directory/base`."""
    layouts = [compose([name, f"results_dir={directory}", *options.overrides]).layout for name in (SFT, RL)]
    if layouts[0] != layouts[1]:
        raise ConfigError(
            f"{SFT} and {RL} differ in `layout`, but one base model serves both: make them equal"
        )
    prompts, tags = layouts[0], TAG_STYLES[layouts[0].tags]
    tokenizer = build_tokenizer([*vocabulary(), prompts.teacher_prompt, prompts.student_prompt])
    world = make_world(options.seed, NUM_TRAIN, options.problems)
    world.write(directory / "world")
    corpus = Corpus(
        TeacherLayout(tokenizer, tags, prompts.teacher_prompt),
        StudentLayout(tokenizer, tags, prompts.student_prompt),
        held_out=frozenset(row.question for row in world.held_out),
        seed=options.seed,
    )
    was_there = make_base(directory / "base", tokenizer, corpus, options.base, options.seed)
    logger.info("base model: %s%s", directory / "base", " (made earlier, used again)" if was_there else "")


def main(words: Sequence[str], base: BaseSettings = BASE) -> int:
    """Run the quickstart as the command line says; return 0 only if it shows an improvement."""
    parser = argparse.ArgumentParser(prog="quickstart", description="Teacher warm-up and RL on tiny models.")
    parser.add_argument("--output", type=Path, default=Path("results/quickstart"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of world, models and sampling")
    parser.add_argument("--backend", choices=("auto", "vllm", "transformers"), default="auto")
    parser.add_argument("--problems", type=int, default=64, help="held-out problems (at least 2)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="further settings of both stages")
    typed = parser.parse_args(words)
    setup_logging()
    interrupt_on_sigterm()
    try:
        overrides = tuple(typed.overrides)
        comparison = run(Options(typed.output, typed.seed, typed.backend, typed.problems, overrides, base))
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0 if comparison.is_real else 1


@contextmanager
def _timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    logger.info("==== %s", what)
    start = time.monotonic()
    yield
    seconds[what] = time.monotonic() - start


def _say(*blocks: str) -> None:
    sys.stdout.write("\n" + "\n\n".join(blocks) + "\n")
    sys.stdout.flush()
