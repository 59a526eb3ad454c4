"""Student RL: GRPO from any checkpoint that thinks before it answers, paid by a grader or a likelihood.

The student is asked as it is when it is evaluated: system prompt and question, nothing of its turn. It writes
thought and solution in its tags. It is paid for the solution (rlt/rewards/correctness.py), for how likely its
thought makes the known one (rlt/rewards/thought.py), or for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from rlt.config.files import is_here, prompt_is_here
from rlt.config.judges import own_student, pays_likelihood, reads_student_model
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import LIKELIHOOD, Config
from rlt.config.students import all_students
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths
from rlt.data.systems import require_systems
from rlt.errors import ConfigError, DataError
from rlt.formats.compare import tokens_unlike
from rlt.formats.cut import Cut
from rlt.formats.layout import StudentLayout
from rlt.models.load import load_context, load_eos_ids, load_tokenizer
from rlt.records import Problem
from rlt.rewards.correctness import CorrectnessReward, CorrectnessWeights
from rlt.rewards.student import StudentText
from rlt.rewards.thought import ThoughtReward
from rlt.stages.benchmarks import benchmark_inputs, load_benchmarks
from rlt.stages.common import (
    places_of,
    progress,
    run_context,
    run_directory,
    write_skipped,
)
from rlt.stages.layouts import student_layout
from rlt.stages.problems import read_held_out, read_problems
from rlt.stages.rl import (
    await_servers,
    keep_earlier_run_apart,
    open_pool,
    rl_data,
    rl_parts,
    rl_resume_point,
    rl_settings,
)
from rlt.stages.student import student_inputs, student_reward
from rlt.stages.student_training import train_student
from rlt.tasks.countdown import is_countdown
from rlt.tasks.graders import GRADERS, Grader
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.lora import lora_config
from rlt.trainers.own_student import OwnStudent
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.student_rl import StudentReward, StudentRLTrainer


def run(config: Config) -> None:
    """Train the student by RL and write it at the top of the run directory."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.evaluation.path,
        **student_inputs(config),
        **benchmark_inputs(config),
    }
    with run_directory(config, inputs) as record, open_grader(config) as grader:
        # 0. What would fail after minutes of loading models fails now.
        checkpoint = rl_resume_point(config)
        pool = open_pool(config)

        # 1. Text: tokenizer, layout, and problems that fit, each with a reference that is read.
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
            reward=partial(make_reward, text=text, grader=grader, config=config),
            parts=rl_parts(pool, config, checkpoint, record),
            settings=rl_settings(config),
            peft_config=lora_config(config.model.lora),
        )

        # 3. Train, and write the model.
        train_student(trainer, config, checkpoint, benchmarks)
        record.update(
            problems=len(data.train),
            held_out=len(data.held_out),
            skipped=num_skipped,
            **({"undecided_answers": grader.undecided} if grader else {}),
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


@contextmanager
def open_grader(config: Config) -> Iterator[Grader | None]:
    """Open the grader of the run; None where the likelihood alone pays."""
    settings = config.correctness
    if settings.grader == LIKELIHOOD:
        yield None
        return
    with GRADERS[settings.grader](settings.grading_seconds) as grader:
        yield grader


def make_reward(
    trainer: StudentRLTrainer, *, text: Text, grader: Grader | None, config: Config
) -> StudentReward:
    """Return what pays: the grader's verdicts, the likelihood of the solution, or both."""
    settings, verdicts = config.correctness, None
    if grader is not None:
        weights = CorrectnessWeights(right=settings.weight, form=settings.format_weight)
        verdicts = CorrectnessReward(grader, weights)
    if verdicts is not None and not pays_likelihood(config):
        return verdicts
    which, layout = own_student(config), trainer.layout
    likelihood = student_reward(
        config,
        [StudentText(all_students(config)[0], layout, None, text.context)],
        accelerator=trainer.accelerator,
        agree=trainer.max_over_processes,
        own=OwnStudent(trainer, which) if which else None,
        reads_turns=True,
    )
    return ThoughtReward(
        likelihood,
        Cut(layout.tokenizer, layout.style.thought.close, within=layout.style.literal),
        weight=settings.weight if verdicts is None else settings.likelihood_weight,
        verdicts=verdicts,
    )


def read_text(config: Config, grader: Grader | None) -> Text:
    """Return layout and problems; raises for a tokenizer, a template or rows that training could not use."""
    layout, stop_ids, context = read_layout(config)
    reads = readers_context(config, layout, context)
    prompted = partial(prompted_problems, layout=layout, context=reads, grader=grader, config=config)
    held_out, problems = read_held_out(config), read_problems(config)
    return Text(layout, stop_ids, context, prompted(problems), prompted(held_out) if held_out else None)


def read_layout(config: Config) -> tuple[StudentLayout, list[int], int | None]:
    """Return the student's layout, what may end its answers, and its context; raises if they don't fit."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    model, revision, trust = config.model_name_or_path, config.model.revision, config.model.trust_remote_code
    tokenizer = load_tokenizer(model, revision=revision, trust=trust)
    span = config.reward.solution_span if pays_likelihood(config) else "content"
    layout = student_layout(config, tokenizer, model, revision=revision, asks_only=True, solution_span=span)
    context = load_context(model, revision=revision, trust=trust)
    check_lengths(config, context, {})
    if pays_likelihood(config):
        require_thought(layout)
    own_stops = load_eos_ids(model, revision=revision, trust=trust)
    return layout, [*layout.stop_token_ids, *own_stops], context


def require_thought(layout: StudentLayout) -> None:
    """Raise ConfigError for a student that is asked to answer without a thought."""
    if layout.style.prompt_empties:
        raise ConfigError(
            f"correctness pays for thoughts, and the prompts of {layout.chat.template.owner} hold an empty "
            "one, so that the student writes none: set layout.chat_template_kwargs so that it thinks, or pay "
            "for answers alone (correctness.grader=math, correctness.likelihood_weight=0)"
        )


def readers_context(config: Config, layout: StudentLayout, context: int | None) -> int | None:
    """Return how many tokens the model that reads thoughts takes, which writes within `context`.

    Raises ConfigError for a copy with another tokenizer: it is given the very ids of each thought.
    """
    if not reads_student_model(config):
        return context
    name, trust = config.student_model, config.model.trust_remote_code
    assert name is not None, "validate() has asked for one"
    unlike = tokens_unlike(layout.tokenizer, load_tokenizer(name, trust=trust))
    if unlike:
        raise ConfigError(
            f"`student_model={name}` reads other token ids than {config.model_name_or_path}, whose thoughts "
            "it is given as they were sampled: take a model with the same tokenizer, or student_model=policy"
        )
    contexts = [context, load_context(name, trust=trust)]
    return min((known for known in contexts if known is not None), default=None)


def check(config: Config) -> None:
    """Raise what training would, before it loads the model, as far as model and data are on this machine."""
    readable = is_here(config.model_name_or_path) and prompt_is_here(config.layout.student_prompt)
    if reads_student_model(config):
        readable = readable and is_here(config.student_model)
    layout, reads = None, None
    if readable:
        layout, _, context = read_layout(config)
        reads = readers_context(config, layout, context)
    with open_grader(config) as grader:
        prompted = partial(prompted_problems, layout=layout, context=reads, grader=grader, config=config)
        held_out = read_held_out(config) if is_here(config.evaluation.path) else None
        eval_rows = prompted(held_out) if held_out else None
        if is_here(config.dataset_id_or_path):
            rl_data(prompted(read_problems(config)), eval_rows, config)


def prompted_problems(
    problems: KeptRows[Problem],
    *,
    layout: StudentLayout | None,
    context: int | None,
    grader: Grader | None,
    config: Config,
) -> KeptRows[PromptedProblem]:
    """Return the problems that fit, with their prompt ids; logs how long they are.

    `context` is that of the model that reads thoughts with the solution after them. Without a layout, in a
    dry run without the student's tokenizer, prompts are empty.
    """
    problems, thinks = require_systems(problems, config), pays_likelihood(config)

    def lay_out(problem: Problem) -> tuple[PromptedProblem, int]:
        if grader is not None:
            grader("", problem.reference)  # a row whose reference it cannot read is a bad one
        if config.correctness.grader == "math" and is_countdown(problem):
            raise DataError(
                f"problem {problem.id} is a Countdown problem, for which the grader math would take any "
                "number or formula of the right value: take correctness.grader=countdown"
            )
        if layout is None:
            return PromptedProblem(problem, []), 0
        ids = layout.prompt_ids(problem)
        return PromptedProblem(problem, ids), len(ids) + len(layout.suffix(problem).ids) if thinks else 0

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    if layout is None:
        return laid_out.map(lambda row: row[0])
    limit = config.max_prompt_length
    rules: list[LengthRule[tuple[PromptedProblem, int]]] = [
        LengthRule("prompt tokens", lambda row: len(row[0].prompt_ids), limit, "max_prompt_length")
    ]
    if thinks and context is not None:
        where = f"the student's context {context} less max_completion_length"
        room = context - config.max_completion_length
        rules.append(LengthRule("tokens around the thought", lambda row: row[1], room, where))
    return fit_lengths(laid_out, rules, config.data).map(lambda row: row[0])
