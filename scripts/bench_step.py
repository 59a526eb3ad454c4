#!/usr/bin/env python3
"""Time of one teacher-RL step after generation against TRL's own GRPO step, as one JSON line.

    .venv/bin/python scripts/bench_step.py --mix lognormal --per-device 4 --processes 2

Both trainers are TRL's GRPOTrainer with the `released` recipe and the same completions, which an engine makes
up: random ids, of lengths with a long tail or all equal. What differs is what comes after generation: here
student, teacher, reference and update; there a constant reward, TRL's reference and TRL's update. One trainer
runs after the other, each with one unmeasured step first. Two processes run under ZeRO-3.

    .venv/bin/python scripts/bench_step.py --server --steps 4

measures a step of teacher_rl with a real vLLM server instead, generation.overlap on and off in turn; the
server has one core, the trainer another. A random model ends with any token, so a vocabulary of V gives
completions of some V tokens in the mean.

CPU seconds are those of the busiest process: they say more than seconds where other work is running.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from length_mix import lengths
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from rlt.config.compose import compose
from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.prompts import teacher_prompt
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import tag_style
from rlt.launch.ports import free_ports
from rlt.launch.server import running_servers
from rlt.models.load import load_tokenizer
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import make_world, vocabulary
from rlt.records import Completion, Problem
from rlt.stages.common import run_context
from rlt.stages.engine import server_pool
from rlt.stages.rl import make_engine, rl_settings
from rlt.stages.student import read_students, student_reward
from rlt.stages.teacher_rl import prompted_problems
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.engine import Rows
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.rl import RLTrainer
from rlt.trainers.rl_parts import RLData, RLParts
from rlt.trainers.server_engine import ServerEngine
from rlt.trainers.teacher_rl import TeacherReward, TeacherRLTrainer

ROOT = Path(__file__).parents[1]
RESULT = "result.json"
GROUP = 8


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mix", choices=("lognormal", "equal"), default="lognormal", help="of lengths")
    parser.add_argument("--server", action="store_true", help="generation.overlap on and off, with vLLM")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--completions", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=768, help="limit of a completion")
    parser.add_argument("--per-device", type=int, default=1, help="completions of one forward pass")
    parser.add_argument("--vocabulary", type=int, default=512)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--student-layers", type=int, help="of the student (default: as --layers)")
    parser.add_argument("--steps", type=int, default=2, help="measured steps of each trainer")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # a process of several
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.WARNING)
    if options.folder is not None:
        measure(options, make_config(options, options.folder))
        return 0
    # The trainers print their steps; standard output is for the one line.
    with tempfile.TemporaryDirectory() as name, redirect_stdout(sys.stderr):
        folder = Path(name)
        write_models(options, folder)
        if options.processes > 1:
            subprocess.run(several(options, folder), check=True, stdout=sys.stderr, env=their_environment())
        else:
            measure(options, make_config(options, folder))
        found = json.loads((folder / RESULT).read_text())
    asked = {name: value for name, value in vars(options).items() if name != "folder"}
    print(json.dumps({"benchmark": "step", **asked, "load": round(os.getloadavg()[0], 1), **found}))
    return 0


def several(options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the command that runs this script in several processes under ZeRO-3."""
    strategy = ROOT / "cfgs" / "accelerate" / "zero3.yaml"
    command = [sys.executable, "-m", "rlt.launch.accelerated", "--config_file", str(strategy)]
    command += ["--num_processes", str(options.processes), "--mixed_precision", "no"]
    command += ["--main_process_port", str(free_ports(1)[0]), str(Path(__file__).resolve())]
    words = sys.argv[1:]
    return [*command, *words, "--folder", str(folder)]


def their_environment() -> dict[str, str]:
    """Return the environment of the processes of a group: this checkout, and DeepSpeed on CPUs."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DS_ACCELERATOR": "cpu"}


# ---- the run that is measured ---------------------------------------------------------------------------


def write_models(options: argparse.Namespace, folder: Path) -> None:
    """Write a teacher and a student with random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_tokenizer(vocabulary())
    for seed, name in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        shape = Qwen2Config(
            vocab_size=options.vocabulary,
            hidden_size=options.hidden,
            intermediate_size=2 * options.hidden,
            num_hidden_layers=(name == "student" and options.student_layers) or options.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=options.tokens + 512,
            eos_token_id=tokenizer.eos_token_id,
        )
        Qwen2ForCausalLM(shape).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def make_config(options: argparse.Namespace, folder: Path, *words: str) -> Config:
    """Return the released recipe, or what `words` make of it, on the models in `folder`.

    Prompts are short beside the completions.
    """
    steps = 2 * options.steps if options.server else options.steps
    return compose(
        [
            "run_cfg=teacher_rl",
            f"model_name_or_path={folder / 'teacher'}",
            f"student_model={folder / 'student'}",
            f"output_dir={folder / 'run'}",
            "layout.teacher_prompt='Explain.'",
            "layout.student_prompt='Think.'",
            "report_to=null",
            *(f"{part}.dtype=float32" for part in ("model", "reward", "generation")),
            f"train_batch_size={options.completions}",
            f"per_device_train_batch_size={options.per_device}",
            f"num_generations={min(GROUP, options.completions)}",
            "max_prompt_length=256",
            f"max_completion_length={options.tokens}",
            f"trainer.max_steps={steps + 1}",
            "trainer.save_steps=0",
            *words,
        ]
    )


def measure(options: argparse.Namespace, config: Config) -> None:
    """Write what a run of this process, or of its group, takes to the folder."""
    found = with_server(config, options) if options.server else against_trl(config, options)
    if int(os.environ.get("RANK", "0")) == 0:
        (Path(config.output_dir).parent / RESULT).write_text(json.dumps(found))


def against_trl(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of both trainers, and their ratio after generation."""
    problems = toy_problems(config, options)
    ours = run(make_ours(config, problems, partial(made_up, options)), options.steps)
    theirs = run(ConstantRewardTrainer(config, problems, partial(made_up, options)), options.steps)
    after = [[row["step"] - row["generate"] - row["sync"] for row in rows] for rows in (ours, theirs)]
    cpu = [statistics.median(row["cpu"] for row in rows) for rows in (ours, theirs)]
    return {
        "ratio_after_generation": round(statistics.median(after[0]) / statistics.median(after[1]), 3),
        "ratio_cpu": round(cpu[0] / cpu[1], 3),
        "perf/padding": round(ours[-1]["padding"], 3),
        "rlt_seconds": medians(ours),
        "trl_seconds": medians(theirs),
    }


def with_server(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of steps with generation.overlap on and off, and what they are compared with."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})  # what is started from here on inherits it
    with running_servers(config) as servers:
        os.sched_setaffinity(0, {cores[-1]})
        config.generation.servers = [server.plan.address for server in servers]
        make = partial(make_engine, pool=server_pool(config), config=config)
        rows = run(make_ours(config, toy_problems(config, options), make, InTurn()), 2 * options.steps)
    on, off = (medians([row for row in rows if row["overlap"] == value]) for value in (1, 0))
    most = max(off["generate"], off["reward"])
    return {
        "overlap_seconds": round(on["step"] - on["sync"], 2),
        "serial_seconds": round(off["step"] - off["sync"], 2),
        # The aim is 1.15 at most.
        "ratio_to_longer": round((on["step"] - on["sync"] - off["update"]) / most, 3),
        "overlap_on": on,
        "overlap_off": off,
    }


def toy_problems(config: Config, options: argparse.Namespace) -> list[PromptedProblem]:
    """Return enough problems for every step."""
    rows = make_world(0, 8 * options.completions, 1).train
    problems = {i: Problem(str(i), row.question, row.solution) for i, row in enumerate(rows, start=1)}
    table = KeptRows("the toy world", "row", problems, len(problems))
    teacher = teacher_layout(config)
    students = read_students(config, teacher.tokenizer)
    return prompted_problems(table, teacher=teacher, students=students, config=config).values


def teacher_layout(config: Config) -> TeacherLayout:
    """Return the teacher's layout."""
    tags = tag_style(config.layout.tags)
    tokenizer = load_tokenizer(str(config.model_name_or_path))
    return TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags))


# ---- completions that nobody has written ----------------------------------------------------------------


class MadeUp:
    """An engine whose completions are random ids of ordinary tokens; the same for both trainers."""

    def __init__(self, trainer: Any, tokens: Sequence[int], limit: int) -> None:
        self._tokens, self._limit = tokens, limit
        self._rank = trainer.accelerator.process_index
        text = "".join(row.question + row.reasoning_trace for row in make_world(0, 8, 1).train)
        self._ids: list[int] = trainer.processing_class.encode(text, add_special_tokens=False)
        self._steps = 0

    def sync_weights(self) -> None:
        """Nothing generates."""

    def sample(self, prompts: Rows, seeds: Sequence[int], *_: Any) -> list[Completion]:  # noqa: ARG002
        """Return completions of the mix; which row has which length changes from step to step."""
        self._steps += 1
        draw = random.Random(self._steps)
        tokens = draw.sample(self._tokens, len(self._tokens))
        first = self._rank * len(prompts)
        return [self._complete(draw, count) for count in tokens[first : first + len(prompts)]]

    def _complete(self, draw: random.Random, count: int) -> Completion:
        logprob = -math.log(len(self._ids))
        reason = "length" if count == self._limit else "stop"
        return Completion(tuple(draw.choices(self._ids, k=count)), (logprob,) * count, reason)

    def sample_each(self, *_: Any) -> list[tuple[str, list[Completion]]]:
        """Nobody compares engine and policy here."""
        return []

    def close(self) -> None:
        """Nothing to release."""


def made_up(options: argparse.Namespace, trainer: Any) -> MadeUp:
    """Return the engine of the options."""
    return MadeUp(trainer, lengths(options.mix, options.completions, options.tokens), options.tokens)


# ---- both trainers --------------------------------------------------------------------------------------


def arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of TRL's configuration for the recipe."""
    return {**grpo_arguments(config, run_context(config)), "disable_tqdm": True}


def make_ours(
    config: Config, problems: list[PromptedProblem], make: Any, *callbacks: TrainerCallback
) -> TeacherRLTrainer:
    """Return the trainer of teacher_rl with the engine that `make` returns for it."""
    layout = teacher_layout(config)
    students = read_students(config, layout.tokenizer)

    def reward(trainer: RLTrainer[Any]) -> Any:
        agree = trainer.max_over_processes
        return student_reward(config, students, accelerator=trainer.accelerator, agree=agree)

    trainer = TeacherRLTrainer(
        str(config.model_name_or_path),
        arguments(config),
        layout=layout,
        data=RLData(problems, []),
        reward=TeacherReward(make=reward, teacher_logprobs=config.reward.teacher_logprobs),
        parts=RLParts(make_engine=make, write_samples=lambda name, rows: None),  # noqa: ARG005
        settings=rl_settings(config),
    )
    for callback in callbacks:
        callback.trainer = trainer  # type: ignore[attr-defined]
        trainer.add_callback(callback)
    return trainer


class ConstantRewardTrainer(GRPOTrainer):
    """TRL's trainer as it is, but for prompts given as ids and the engine that both trainers share."""

    def __init__(self, config: Config, problems: list[PromptedProblem], make: Any) -> None:
        rows = {"prompt": [""] * len(problems), "index": range(len(problems))}
        args = GRPOConfig(**arguments(config))
        super().__init__(
            config.model_name_or_path,
            reward_funcs=[constant_reward],
            args=args,
            train_dataset=Dataset.from_dict(rows),
            processing_class=load_tokenizer(config.model_name_or_path),
        )
        self.problems = problems
        self.engine: MadeUp = make(self)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.batch = [self.problems[row["index"]] for row in inputs]
        return super()._generate_and_score_completions(inputs)

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:  # noqa: ARG002
        return [item.prompt_ids for item in self.batch], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        with phase(self, "time/sync"):
            self.engine.sync_weights()
        with phase(self, "time/generate"):
            completions = self.engine.sample(prompt_ids, [])
        return [list(c.token_ids) for c in completions], None


def constant_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Return the same reward for all."""
    return [0.0] * len(completion_ids)


@contextmanager
def phase(trainer: GRPOTrainer, name: str) -> Iterator[None]:
    """Log the seconds of a block, as TeacherRLTrainer does."""
    start = time.perf_counter()
    yield
    trainer._metrics["train"][name].append(time.perf_counter() - start)


# ---- what is measured -----------------------------------------------------------------------------------


class InTurn(TrainerCallback):
    """Switches generation.overlap on and off from step to step; the first step has it off."""

    trainer: RLTrainer[Any]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Switch."""
        engine = self.trainer.engine
        assert isinstance(engine, ServerEngine)
        assert engine.overlaps or state.global_step, "generation.overlap is on unless it is switched off here"
        engine.overlaps = bool(state.global_step % 2)


class Steps(TrainerCallback):
    """Keeps the time split of every step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._start = self._cpu = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the clock of the CPUs."""
        self._start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Stop it."""
        self._cpu = max(gather_object([time.process_time() - self._start]))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Take a training row."""
        if not logs or "step_time" not in logs:
            return
        split = {name.removeprefix("time/"): logs[name] for name in logs if name.startswith("time/")}
        row = {**split, "step": logs["step_time"]}
        row.setdefault("update", row["step"] - sum(split.values()))  # TRL's own trainer reports none
        row["cpu"] = self._cpu
        row["padding"] = logs.get("perf/padding", math.nan)
        row["overlap"] = (state.global_step - 1) % 2  # as InTurn has switched it
        self.rows.append(row)
        sys.stderr.write(f"{ {k: round(v, 2) for k, v in row.items()} }\n")


def run(trainer: Any, steps: int) -> list[dict[str, float]]:
    """Return the time split of the measured steps; the first one warms up."""
    rows = Steps()
    trainer.add_callback(rows)
    trainer.train()
    trainer.engine.close()
    return rows.rows[-steps:]


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each phase."""
    names = [name for name in rows[0] if name not in ("padding", "overlap")]
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in names}


if __name__ == "__main__":
    sys.exit(main())
