"""Student OPD: a student learns from a teacher that has read the solution, on completions of its own.

The student is asked as it is when it is evaluated. The teacher reads question and solution in its own layout,
the student's thought in the place of its explanation, and measures how likely each token is (docs/opd.md).
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
from rlt.errors import ConfigError
from rlt.formats.layout import StudentLayout
from rlt.formats.place import Places, ThoughtFinder
from rlt.models.load import load_context, load_eos_ids, load_tokenizer
from rlt.records import Problem
from rlt.stages.benchmarks import benchmark_inputs, load_benchmarks
from rlt.stages.common import (
    is_main_process,
    places_of,
    progress,
    run_context,
    run_directory,
    write_skipped,
)
from rlt.stages.layouts import student_layout
from rlt.stages.opd_teacher import (
    AVERAGE,
    is_served,
    make_average,
    make_teacher,
    opens_thought,
    read_places,
    teacher_context,
    verify_teacher_servers,
    weights_of_teacher,
)
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
from rlt.stages.student_check import StudentCheck
from rlt.stages.student_training import train_student
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.divergence import divergence_of
from rlt.trainers.lora import lora_config
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.reference import require_reference
from rlt.trainers.student_opd import Objective, OPDParts, StudentOPDTrainer
from rlt.trainers.taught_answer import TaughtAnswers


def run(config: Config) -> None:
    """Train the student towards its teacher and write it at the top of the run directory."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "teacher": config.teacher_model if config.opd.teacher == "model" else None,
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.evaluation.path,
        **benchmark_inputs(config),
    }
    with run_directory(config, inputs) as record:
        # 0. What would fail after minutes of loading models fails now.
        checkpoint = rl_resume_point(config)
        if checkpoint and config.opd.teacher == "ema":
            require_reference(checkpoint, AVERAGE)
        pool = open_pool(config)

        # 1. Text: tokenizers, layouts, and problems that fit both models.
        text = read_text(config)
        num_skipped = write_skipped(config, text.train_rows, text.eval_rows)
        places = places_of(text.train_rows, checkpoint, record)
        data = rl_data(text.train_rows, text.eval_rows, config, places)
        await_servers(pool, config)
        check = StudentCheck([p.problem for p in data.train], config.max_completion_length, record)
        if is_served(config) and config.opd.verify_server and is_main_process():
            verify_teacher_servers(config, text.places, check)
        trained_on = (row.problem for row in data.train)
        benchmarks = load_benchmarks(
            config, text.layout, trained_on, stop_ids=text.stop_ids, context=text.context, pool=pool
        )

        # 2. Trainer: student, teacher, engine.
        keep_earlier_run_apart(config, checkpoint)
        trainer = StudentOPDTrainer(
            config.model_name_or_path,
            grpo_arguments(config, run_context(config)),
            layout=text.layout,
            data=data,
            opd=opd_parts(config, text, check),
            parts=rl_parts(pool, config, checkpoint, record),
            settings=rl_settings(config),
            peft_config=lora_config(config.model.lora),
        )

        # 3. Train, and write the model.
        train_student(trainer, config, checkpoint, benchmarks)
        record.update(problems=len(data.train), held_out=len(data.held_out), skipped=num_skipped)


@dataclass(frozen=True)
class Text:
    """What is known before a model is loaded."""

    layout: StudentLayout
    stop_ids: Sequence[int]
    """What may end an answer: by the layout, and by the model's own files."""
    context: int | None
    places: Places
    vocabulary: int
    """Ids below are tokens of both models."""
    room: int | None
    """The teacher's context."""
    train_rows: KeptRows[PromptedProblem]
    eval_rows: KeptRows[PromptedProblem] | None


def read_text(config: Config) -> Text:
    """Return layouts and problems; raises for a tokenizer, a template or rows that training could not use."""
    layout, stop_ids, context = read_layout(config)
    places, vocabulary = read_places(config, layout)
    room = teacher_context(config)
    prompted = partial(prompted_problems, layout=layout, places=places, room=room, config=config)
    held_out, problems = read_held_out(config), read_problems(config)
    rows = prompted(problems), prompted(held_out) if held_out else None
    return Text(layout, stop_ids, context, places, vocabulary, room, *rows)


def read_layout(config: Config) -> tuple[StudentLayout, list[int], int | None]:
    """Return the student's layout, what may end its answers, and its context; raises if they don't fit."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    model, revision, trust = config.model_name_or_path, config.model.revision, config.model.trust_remote_code
    tokenizer = load_tokenizer(model, revision=revision, trust=trust)
    layout = student_layout(config, tokenizer, model, revision=revision, asks_only=True)
    if layout.style.prompt_empties and config.opd.solution_in == "explanation":
        raise ConfigError(
            "`opd.solution_in=explanation` puts the student's thought in the place of the teacher's "
            f"explanation, and the prompts of {model} leave no room for a thought: switch it on with "
            "layout.chat_template_kwargs={enable_thinking: true}, or take opd.solution_in=question."
        )
    context = load_context(model, revision=revision, trust=trust)
    check_lengths(config, context, {})
    own_stops = load_eos_ids(model, revision=revision, trust=trust)
    return layout, [*layout.stop_token_ids, *own_stops], context


def opd_parts(config: Config, text: Text, check: StudentCheck) -> OPDParts:
    """Return the teacher's side of the training."""
    opd = config.opd
    objective = Objective(
        support=opd.support,
        divergence=None if opd.support == "sampled" else divergence_of(opd.divergence, opd.js_share),
        temperature=opd.temperature or config.temperature,
        top_k=opd.top_k,
        vocabulary=text.vocabulary,
    )
    average = partial(make_average, config=config) if opd.teacher == "ema" else None
    teacher = partial(make_teacher, places=text.places, check=check, config=config)
    opening = opening_ids(text.layout, check.problems[0]) if opens_thought(config) else []
    return OPDParts(
        objective,
        text.places,
        teacher,
        make_average=average,
        opening_ids=opening,
        answers=taught_answers(config, text.layout),
        teacher_context=text.room,
    )


def taught_answers(config: Config, layout: StudentLayout) -> TaughtAnswers | None:
    """Return what teaches the student to answer from its thought, or None where nothing does."""
    if not config.opd.answer_coeff:
        return None
    find = ThoughtFinder(layout, is_opened=opens_thought(config))
    return TaughtAnswers(
        layout, find, coefficient=config.opd.answer_coeff, max_tokens=config.max_completion_length
    )


def opening_ids(layout: StudentLayout, problem: Problem) -> list[int]:
    """Return the ids by which a prompt opens the thought."""
    return layout.prefix_ids(problem)[len(layout.prompt_ids(problem)) :]


def check(config: Config) -> None:
    """Raise what training would, before it loads the model, as far as models and data are on this machine."""
    here = is_here(config.model_name_or_path) and prompt_is_here(config.layout.student_prompt)
    layout = read_layout(config)[0] if here else None
    places = room = None
    if layout is not None and is_here(weights_of_teacher(config)):
        places, room = read_places(config, layout)[0], teacher_context(config)
    prompted = partial(prompted_problems, layout=layout, places=places, room=room, config=config)
    held_out = read_held_out(config) if is_here(config.evaluation.path) else None
    eval_rows = prompted(held_out) if held_out else None
    if is_here(config.dataset_id_or_path):
        rl_data(prompted(read_problems(config)), eval_rows, config)


def prompted_problems(
    problems: KeptRows[Problem],
    *,
    layout: StudentLayout | None,
    places: Places | None,
    room: int | None,
    config: Config,
) -> KeptRows[PromptedProblem]:
    """Return the problems that fit both models, with the student's prompt ids; logs how long they are.

    `room` is the teacher's context. Without layout or places, in a dry run without the models' tokenizers,
    prompts are empty.
    """
    problems = require_systems(problems, config)

    def lay_out(problem: Problem) -> tuple[PromptedProblem, int]:
        ask = layout and (layout.prefix_ids if opens_thought(config) else layout.prompt_ids)
        prompt = ask(problem) if ask else []
        return PromptedProblem(problem, prompt), len(places.prompt_ids(problem)) if places else 0

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rules: list[LengthRule[tuple[PromptedProblem, int]]] = []
    if layout is not None:
        limit = config.max_prompt_length
        rules.append(
            LengthRule("prompt tokens", lambda row: len(row[0].prompt_ids), limit, "max_prompt_length")
        )
    if places is not None and room is not None:
        rules.append(
            LengthRule(
                "teacher tokens before the completion",
                lambda row: row[1],
                room - config.max_completion_length,
                f"the teacher's context {room} less max_completion_length",
            )
        )
    return fit_lengths(laid_out, rules, config.data).map(lambda row: row[0])
