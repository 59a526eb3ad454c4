#!/usr/bin/env python3
"""Time of one teacher-RL step against one TRL GRPO step with a constant reward, as one JSON line.

    .venv/bin/python scripts/bench_step.py

Both trainers are TRL's GRPOTrainer with the `released` recipe; both ask the same real vLLM server and push
weights the same way, so what differs is the reward: the teacher's and the student's log-probabilities of
every completion. Random weights hardly ever end a completion, so all have the full length. One trainer runs
after the other, each with one unmeasured step first.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from rlt.config.compose import compose
from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.prompts import teacher_prompt
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.launch.server import running_servers
from rlt.models.load import load_tokenizer
from rlt.quickstart.tokenizer import build_tokenizer
from rlt.quickstart.world import make_world, vocabulary
from rlt.records import Problem
from rlt.stages.components import load_outside_parts
from rlt.stages.engine import server_pool
from rlt.stages.rl import make_engine, rl_settings
from rlt.stages.student import read_students
from rlt.stages.teacher_rl import make_reward, prompted_problems
from rlt.trainers.arguments import RunContext, grpo_arguments
from rlt.trainers.meter import Meter
from rlt.trainers.rl import PromptedProblem, RLData, RLParts
from rlt.trainers.teacher_rl import TeacherReward, TeacherRLTrainer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each completion")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--per-device", type=int, default=8, help="completions of one forward pass")
    parser.add_argument("--steps", type=int, default=2, help="measured steps of each trainer")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.WARNING)
    # The trainers print their steps; standard output is for the one line.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        config = make_config(options, Path(folder))
        with running_servers(config) as servers:
            config.generation.servers = [server.plan.address for server in servers]
            problems = toy_problems(config, options)
            ours = run(make_ours(config, problems), options.steps)
            theirs = run(make_theirs(config, problems), options.steps)
    after = [a / b for a, b in zip(after_generation(ours), after_generation(theirs), strict=True)]
    whole = [a["step"] / b["step"] for a, b in zip(ours, theirs, strict=True)]
    print(
        json.dumps(
            {
                "benchmark": "step",
                **{name.replace("-", "_"): value for name, value in vars(options).items()},
                "ratio_after_generation": round(statistics.median(after), 3),
                "ratio_whole": round(statistics.median(whole), 3),
                "rlt_seconds": medians(ours),
                "trl_seconds": medians(theirs),
            }
        )
    )


def make_config(options: argparse.Namespace, folder: Path) -> Config:
    """Return the released recipe on tiny models with a full vocabulary, written into `folder`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_tokenizer(vocabulary())
    for seed, name in enumerate(("teacher", "student")):
        torch.manual_seed(seed)
        shape = Qwen2Config(
            vocab_size=options.vocabulary,
            hidden_size=options.hidden,
            intermediate_size=2 * options.hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            eos_token_id=tokenizer.eos_token_id,
        )
        Qwen2ForCausalLM(shape).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return compose(
        [
            "run_cfg=teacher_rl",
            f"model_name_or_path={folder / 'teacher'}",
            f"student_model={folder / 'student'}",
            f"output_dir={folder / 'run'}",
            "layout.student_prompt=default",
            "report_to=null",
            *(f"{part}.dtype=float32" for part in ("model", "reward", "generation")),
            f"train_batch_size={options.completions}",
            f"per_device_train_batch_size={options.per_device}",
            f"num_generations={min(16, options.completions)}",
            "max_prompt_length=512",
            f"max_completion_length={options.tokens}",
            f"trainer.max_steps={options.steps + 1}",
            "trainer.save_steps=0",
        ]
    )


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
    tags = TAG_STYLES[config.layout.tags]
    tokenizer = load_tokenizer(str(config.model_name_or_path))
    return TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags))


def arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of TRL's configuration for the recipe."""
    context = RunContext(1, use_cpu=not torch.cuda.is_available(), deepspeed=False)
    return {**grpo_arguments(config, context), "disable_tqdm": True}


def make_ours(config: Config, problems: list[PromptedProblem]) -> GRPOTrainer:
    """Return the trainer of teacher_rl."""
    layout = teacher_layout(config)
    students = read_students(config, layout.tokenizer)
    outside = load_outside_parts(config, is_main=True)
    return TeacherRLTrainer(
        str(config.model_name_or_path),
        arguments(config),
        layout=layout,
        data=RLData(problems, []),
        reward=TeacherReward(
            make=partial(make_reward, students=students, outside=outside, config=config),
            teacher_logprobs=config.reward.teacher_logprobs,
        ),
        parts=RLParts(
            make_engine=partial(make_engine, pool=server_pool(config), config=config),
            write_samples=lambda name, rows: None,  # noqa: ARG005
        ),
        settings=rl_settings(config),
    )


class ConstantRewardTrainer(GRPOTrainer):
    """TRL's trainer as it is, but for prompts given as ids and the engine that both trainers share."""

    def __init__(self, config: Config, problems: list[PromptedProblem]) -> None:
        rows = {"prompt": [""] * len(problems), "index": range(len(problems))}
        super().__init__(
            config.model_name_or_path,
            reward_funcs=[constant_reward],
            args=GRPOConfig(**arguments(config)),
            train_dataset=Dataset.from_dict(rows),
            processing_class=load_tokenizer(config.model_name_or_path),
        )
        self.layout = teacher_layout(config)
        self.stop_token_ids = self.eos_token_ids
        self.policy = self.model
        self.problems = problems
        self.meter = Meter(self.accelerator, None)  # which the engine's servers report to
        self.engine = make_engine(self, pool=server_pool(config), config=config)  # type: ignore[arg-type]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.batch = [self.problems[row["index"]] for row in inputs]
        return super()._generate_and_score_completions(inputs)

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:  # noqa: ARG002
        return [item.prompt_ids for item in self.batch], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        with phase(self, "time/sync"):
            self.engine.sync_weights()
        with phase(self, "time/generate"):
            seeds = list(range(len(prompt_ids)))
            completions = self.engine.sample(prompt_ids, seeds, self.num_generations)
        return [list(c.token_ids) for c in completions], None


def make_theirs(config: Config, problems: list[PromptedProblem]) -> GRPOTrainer:
    """Return TRL's trainer with a constant reward."""
    return ConstantRewardTrainer(config, problems)


def constant_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Return the same reward for all."""
    return [0.0] * len(completion_ids)


@contextmanager
def phase(trainer: GRPOTrainer, name: str) -> Iterator[None]:
    """Log the seconds of a block, as TeacherRLTrainer does."""
    import time

    start = time.perf_counter()
    yield
    trainer._metrics["train"][name].append(time.perf_counter() - start)


class Steps(TrainerCallback):
    """Keeps the time split of every step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Take a training row."""
        if logs and "step_time" in logs:
            split = {name.removeprefix("time/"): logs[name] for name in logs if name.startswith("time/")}
            row = {**split, "step": logs["step_time"]}
            row.setdefault("update", row["step"] - sum(split.values()))  # TRL's own trainer tells none
            self.rows.append(row)
            sys.stderr.write(f"{ {k: round(v, 2) for k, v in row.items()} }\n")


def run(trainer: GRPOTrainer, steps: int) -> list[dict[str, float]]:
    """Return the time split of the measured steps; the first one warms up."""
    rows = Steps()
    trainer.add_callback(rows)
    trainer.train()
    trainer.engine.close()  # type: ignore[attr-defined]
    return rows.rows[-steps:]


def after_generation(rows: list[dict[str, float]]) -> list[float]:
    """Return the seconds of each step after generation and sync."""
    return [row["step"] - row["generate"] - row["sync"] for row in rows]


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each phase."""
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


if __name__ == "__main__":
    main()
