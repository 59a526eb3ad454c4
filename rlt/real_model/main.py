"""The method on SmolLM2-135M-Instruct and GSM8K, through the stages as anyone runs them.

    python -m rlt real-model 3 results/real_model --data gsm8k_train.jsonl

FOLDER holds `model/`, `problems/`, `sizes.json`, the run directories of two pipelines (`training/`,
`measures/`), `calls.jsonl`, and `report.md` and `.html`. The same command continues where it stopped.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlt.config.checkpoints import last_whole
from rlt.errors import ConfigError, Paused, RLTError
from rlt.launch.command import PROJECT
from rlt.parser import Parser
from rlt.quickstart.stages import Backend, choose_backend, interrupt_on_sigterm, run_to_end
from rlt.real_model.calls import Call, note_load, recorded_call
from rlt.real_model.fetch import fetch_model
from rlt.real_model.problems import HUB, write_problems
from rlt.real_model.report import write_report
from rlt.real_model.sizes import RL_SHARE, Sizes, fast_dtype, settle_sizes, short_sizes, sizes_for
from rlt.reporting.progress import setup_logging
from rlt.surroundings.leaving import run_command
from rlt.surroundings.place import settle
from rlt.surroundings.world import forget_processes

logger = logging.getLogger("rlt.real_model")

TRAINING, MEASURES = "cfgs/run_cfg/real_model.yaml", "cfgs/run_cfg/real_model_measures.yaml"
WAYS = "cfgs/run_cfg/real_model_three_ways.yaml"
TEACHER_STEPS = ("explanations_after", "scores_after", "tokens", "explanations_ranked", "scores_ranked")
"""Steps of MEASURES that read the teacher after RL."""
_LONGEST = 7 * 24 * 3600.0
"""Seconds of one pipeline; what a stage waits for has limits of its own."""


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    hours: float
    folder: Path
    data: str = HUB
    model: Path | None = None
    short: bool = False
    seed: int = 0
    dtype: str | None = None
    """Of trainings and server; None: bfloat16 where the machine has units for it."""
    three_ways: int = 0
    """Seeds of the three ways to learn from the teacher."""


def run(options: Options) -> Path:
    """Return the report, having done everything that leads there and was not there yet."""
    options.folder.mkdir(parents=True, exist_ok=True)
    with recorded_call(options.folder) as call:
        make_runs(options, call)
    return write_report(options.folder)


def make_runs(options: Options, call: Call) -> None:
    """Do what is not there yet."""
    folder = options.folder

    # 1. How much is done; problems; a model, which may have to be downloaded.
    has_problems = (folder / "problems/train.jsonl").is_file()  # written last
    backend = choose_backend("auto")
    dtype = fast_dtype(on_cpu=is_on_cpu(backend))
    wanted = short_sizes(dtype) if options.short else sizes_for(options.hours, dtype)
    sizes = settle_sizes(folder, wanted, has_begun=has_problems, dtype=options.dtype)
    logger.info("%s", sizes)
    if not has_problems:
        write_problems(folder / "problems", options.data, sizes, options.seed)
    place_model(folder, options.model)

    # 2. The reward of four kinds of explanations, student, warm-up, and RL for its share of the hours.
    logger.info("generation back end of RL: %s (%s)", backend.name, backend.reason)
    run_pipeline(training_words(folder, sizes, options.hours, backend), backend, may_pause=True)
    note_load(call)
    write_report(folder)  # there is something to read while the rest runs

    # 3. Explanations of both teachers, and students of the ranks.
    if sizes.students:
        run_pipeline(measure_words(folder), backend)
        write_report(folder)

    # 4. The three ways to learn from the teacher after RL.
    for seed in range(options.three_ways if sizes.students else 0):
        run_pipeline(ways_words(folder, seed), backend)


def place_model(folder: Path, given: Path | None) -> None:
    """Have the model at `folder/model`: a link to a folder that was given, else fetched."""
    place = folder / "model"
    if given is None:
        fetch_model(folder)
    elif not (given / "config.json").is_file():
        raise ConfigError(f"--model={given} holds no config.json: give a model's folder")
    elif not place.exists():
        place.symlink_to(given.resolve())
    elif place.resolve() != given.resolve():
        raise ConfigError(f"{place} is another model than --model={given}: take another FOLDER")


def training_words(folder: Path, sizes: Sizes, hours: float, backend: Backend) -> list[str]:
    """Return the command line of the first pipeline."""
    rl = "pipeline.steps.teacher_rl"
    words = [TRAINING, f"results_dir={folder}"]
    words += [f"pipeline.steps.student.trainer.max_steps={sizes.student_steps}"]
    words += [f"pipeline.steps.teacher_sft.trainer.max_steps={sizes.warm_up_steps}"]
    trained = ("student", "teacher_sft", "teacher_rl")
    words += [f"pipeline.steps.{step}.model.dtype={sizes.dtype}" for step in trained]
    words += [f"{rl}.{section}.dtype={sizes.dtype}" for section in ("reward", "generation")]
    words += [f"{rl}.trainer.max_steps={sizes.rl_steps}", f"{rl}.trainer.max_hours={RL_SHARE * hours:g}"]
    if backend.name == "transformers":
        words += [f"{rl}.generation.backend=transformers", f"{rl}.gpus=1"]
    return words


def measure_words(folder: Path) -> list[str]:
    """Return the command line of the second pipeline."""
    teacher = last_teacher(folder / "training/teacher_rl")
    of_teacher = [f"pipeline.steps.{step}.model_name_or_path={teacher}" for step in TEACHER_STEPS]
    return [MEASURES, f"results_dir={folder}", *of_teacher]


def ways_words(folder: Path, seed: int) -> list[str]:
    """Return the command line of the third pipeline."""
    teacher = last_teacher(folder / "training/teacher_rl")
    words = [WAYS, f"results_dir={folder}", f"seed={seed}", f"output_dir={folder}/three_ways/seed_{seed}"]
    words += [f"pipeline.steps.{step}.model_name_or_path={teacher}" for step in ("traces", "half_traces")]
    return [*words, *(f"pipeline.steps.{step}.teacher_model={teacher}" for step in ("opd", "both"))]


def last_teacher(run: Path) -> Path:
    """Return the folder of the teacher after RL: the run's own, or its newest checkpoint if RL was paused."""
    if (run / "config.json").is_file():
        return run
    newest = last_whole(run)
    if newest is None:
        raise RLTError(f"{run} holds no model: RL has not done a single step; give more hours")
    return newest


def is_on_cpu(backend: Backend) -> bool:
    """Return whether server and trainings run on the CPU, whatever GPUs there are."""
    return backend.name == "vllm" and not backend.on_gpus


def run_pipeline(words: Sequence[str], backend: Backend, *, may_pause: bool = False) -> None:
    """Run `./launch.sh WORDS` to its end; raise RLTError when it fails. A pause of RL is an end, too."""
    logger.info("$ ./launch.sh %s", " ".join(words))
    env = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if is_on_cpu(backend) else {})}
    code = run_to_end([str(PROJECT / "launch.sh"), *words], _LONGEST, env=env)
    if code == Paused.exit_code and may_pause:
        logger.info("RL has used its share of the hours; a later call with the same FOLDER continues with it")
    elif code:
        raise RLTError(f"./launch.sh {words[0]} ended with exit code {code}; its last lines say why")


def main(words: Sequence[str]) -> int:
    """Run as the command line says."""
    parser = Parser(prog="python -m rlt real-model", description="The method on a real small language model.")
    parser.add_argument("hours", nargs="?", type=float, default=3.0, help="what the run may take (3)")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("results/real_model"), help="of all runs"
    )
    parser.add_argument(
        "--data", default=HUB, metavar="FILE", help=f"rows of GSM8K; without it {HUB} of the Hub"
    )
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a model's folder, instead of fetching SmolLM2"
    )
    parser.add_argument("--short", action="store_true", help="four problems, one step of warm-up, two of RL")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of problems")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of trainings and server; without it bfloat16 where the machine has units for it",
    )
    parser.add_argument(
        "--three-ways", type=int, default=0, metavar="SEEDS", help="also three ways to learn from the teacher"
    )
    typed = parser.parse_args(words)
    if not 0 < typed.hours <= 1000:
        raise ConfigError(f"HOURS must be above 0 and at most 1000, got {typed.hours:g}")
    setup_logging()
    interrupt_on_sigterm()
    settle(os.environ)
    forget_processes(os.environ, "real-model")
    report = run(Options(**vars(typed)))
    sys.stdout.write(report.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
