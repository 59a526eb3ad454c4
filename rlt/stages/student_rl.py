"""Student RL: GRPO with the task's grader as reward, from any checkpoint that thinks before it answers.

The student is asked as it is when it is evaluated: system prompt and question, nothing of its turn. It writes
thought and solution in its tags, and is paid for the solution (rlt/rewards/correctness.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rlt.config.files import is_here, prompt_is_here
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import Config
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths
from rlt.data.systems import require_systems
from rlt.errors import DataError
from rlt.formats.layout import StudentLayout
from rlt.models.load import load_context, load_eos_ids, load_tokenizer
from rlt.records import Problem
from rlt.rewards.correctness import CorrectnessReward, CorrectnessWeights
from rlt.stages.benchmarks import benchmark_inputs, load_benchmarks, watch_benchmarks
from rlt.stages.common import (
    places_of,
    progress,
    run_context,
    run_directory,
    start_step,
    write_skipped,
)
from rlt.stages.layouts import student_layout, student_record
from rlt.stages.problems import read_held_out, read_problems
from rlt.stages.rl import (
    await_servers,
    keep_earlier_run_apart,
    open_pool,
    rl_data,
    rl_parts,
    rl_resume_point,
    rl_settings,
    train_and_save,
)
from rlt.tasks.countdown import is_countdown
from rlt.tasks.graders import GRADERS, Grader
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.final_model import SavedWith, generation_config
from rlt.trainers.lora import lora_config
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.student_rl import StudentRLTrainer


def run(config: Config) -> None:
    """Train the student by RL and write it at the top of the run directory."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.data.eval_path,
        **benchmark_inputs(config),
    }
    settings = config.correctness
    with (
        run_directory(config, inputs) as record,
        GRADERS[settings.grader](settings.grading_seconds) as grader,
    ):
        # 0. What would fail after minutes of loading models fails now.
        checkpoint = rl_resume_point(config)
        pool = open_pool(config)

        # 1. Text: tokenizer, layout, and problems that fit, each with a reference that the grader reads.
        text = read_text(config, grader)
        num_skipped = write_skipped(config, text.train_rows, text.eval_rows)
        places = places_of(text.train_rows, checkpoint, record)
        data = rl_data(text.train_rows, text.eval_rows, config, places)
        await_servers(pool, config)
        trained_on = (row.problem for row in data.train)
        benchmarks = load_benchmarks(
            config, text.layout, trained_on, stop_ids=text.stop_ids, context=text.context, pool=pool
        )

        # 2. Trainer: policy, reference, grader, engine.
        keep_earlier_run_apart(config, checkpoint)
        trainer = StudentRLTrainer(
            config.model_name_or_path,
            grpo_arguments(config, run_context(config)),
            layout=text.layout,
            data=data,
            reward=CorrectnessReward(
                grader, CorrectnessWeights(right=settings.weight, form=settings.format_weight)
            ),
            parts=rl_parts(pool, config, checkpoint, record),
            settings=rl_settings(config),
            peft_config=lora_config(config.model.lora),
        )

        # 3. Train, and write the model, which goes on to end its turn with the token that it was taught.
        stop_ids = list(dict.fromkeys([*trainer.eos_token_ids, *trainer.stop_token_ids]))
        generation = generation_config(text.layout.tokenizer, stop_ids, config.temperature)
        watch_benchmarks(trainer, benchmarks, trainer.answer, start_step(checkpoint))
        layout = student_record(config, text.layout, (row.problem for row in data.train))
        train_and_save(trainer, config, checkpoint, SavedWith(generation, layout))
        record.update(
            problems=len(data.train),
            held_out=len(data.held_out),
            skipped=num_skipped,
            undecided_answers=grader.undecided,
        )


@dataclass(frozen=True)
class Text:
    """What is known before the model is loaded."""

    layout: StudentLayout
    stop_ids: Sequence[int]
    """What may end an answer: by the layout, and by the model's own files."""
    context: int | None
    train_rows: KeptRows[PromptedProblem]
    eval_rows: KeptRows[PromptedProblem] | None


def read_text(config: Config, grader: Grader) -> Text:
    """Return layout and problems; raises for a tokenizer, a template or rows that training could not use."""
    layout, stop_ids, context = read_layout(config)
    prompted = partial(prompted_problems, layout=layout, grader=grader, config=config)
    held_out, problems = read_held_out(config), read_problems(config)
    return Text(layout, stop_ids, context, prompted(problems), prompted(held_out) if held_out else None)


def read_layout(config: Config) -> tuple[StudentLayout, list[int], int | None]:
    """Return the student's layout, what may end its answers, and its context; raises if they don't fit."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    model, revision, trust = config.model_name_or_path, config.model.revision, config.model.trust_remote_code
    tokenizer = load_tokenizer(model, revision=revision, trust=trust)
    layout = student_layout(config, tokenizer, model, revision=revision, asks_only=True)
    context = load_context(model, revision=revision, trust=trust)
    check_lengths(config, context, {})
    own_stops = load_eos_ids(model, revision=revision, trust=trust)
    return layout, [*layout.stop_token_ids, *own_stops], context


def check(config: Config) -> None:
    """Raise what training would, before it loads the model, as far as model and data are on this machine."""
    settings = config.correctness
    readable = is_here(config.model_name_or_path) and prompt_is_here(config.layout.student_prompt)
    layout = read_layout(config)[0] if readable else None
    with GRADERS[settings.grader](settings.grading_seconds) as grader:
        prompted = partial(prompted_problems, layout=layout, grader=grader, config=config)
        held_out = read_held_out(config) if is_here(config.data.eval_path) else None
        eval_rows = prompted(held_out) if held_out else None
        if is_here(config.dataset_id_or_path):
            rl_data(prompted(read_problems(config)), eval_rows, config)


def prompted_problems(
    problems: KeptRows[Problem], *, layout: StudentLayout | None, grader: Grader, config: Config
) -> KeptRows[PromptedProblem]:
    """Return the problems that fit, with their prompt ids; logs how long they are.

    Without a layout, in a dry run without the student's tokenizer, prompts are empty.
    """
    problems = require_systems(problems, config)

    def lay_out(problem: Problem) -> PromptedProblem:
        grader("", problem.reference)  # a row whose reference it cannot read is a bad one
        if config.correctness.grader == "math" and is_countdown(problem):
            raise DataError(
                f"problem {problem.id} is a Countdown problem, for which the grader math would take any "
                "number or formula of the right value: take correctness.grader=countdown"
            )
        return PromptedProblem(problem, layout.prompt_ids(problem) if layout else [])

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    if layout is None:
        return laid_out
    rule = LengthRule[PromptedProblem](
        "prompt tokens", lambda row: len(row.prompt_ids), config.max_prompt_length, "max_prompt_length"
    )
    return fit_lengths(laid_out, [rule], config.data)
