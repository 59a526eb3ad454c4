"""Teacher RL: GRPO with the reward of a frozen student (method sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rlt.config.files import is_here
from rlt.config.judges import own_student
from rlt.config.rules.lengths import check_lengths
from rlt.config.schema import Config
from rlt.config.students import FIRST
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths
from rlt.data.systems import require_systems
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import TeacherLayout
from rlt.models.load import load_context, load_tokenizer
from rlt.records import Problem
from rlt.rewards.likelihood import Reward
from rlt.rewards.student import StudentText
from rlt.stages.common import (
    is_main_process,
    places_of,
    progress,
    run_context,
    run_directory,
    write_skipped,
)
from rlt.stages.components import (
    OutsideParts,
    answer_room,
    check_columns,
    load_functions,
    load_outside_parts,
    with_components,
)
from rlt.stages.layouts import teacher_layout, teacher_record
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
from rlt.stages.student import read_students, student_inputs, student_reward
from rlt.stages.student_check import (
    Processes,
    StudentCheck,
    verify_sharded_students,
    verify_student_servers,
)
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.final_model import SavedWith, generation_config
from rlt.trainers.lora import lora_config
from rlt.trainers.own_student import OwnStudent
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.teacher_rl import TeacherReward, TeacherRLTrainer


def run(config: Config) -> None:
    """Train the teacher by RL and write it at the top of the run directory."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    assert config.student_model is not None, "validate() has asked for a student"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        **student_inputs(config),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.evaluation.path,
    }
    with run_directory(config, inputs) as record:
        # 0. What would fail after minutes of loading models fails now.
        checkpoint = rl_resume_point(config)
        pool = open_pool(config)
        outside = load_outside_parts(config, is_main=is_main_process())

        # 1. Text: tokenizers, layouts, and problems that fit every model's context.
        text = read_text(config)
        num_skipped = write_skipped(config, text.train_rows, text.eval_rows)
        places = places_of(text.train_rows, checkpoint, record)
        data = rl_data(text.train_rows, text.eval_rows, config, places)
        check_columns(outside.functions, [item.problem for item in (*data.train, *data.held_out)])
        await_servers(pool, config)
        check = StudentCheck([p.problem for p in data.train], config.max_completion_length, record)
        if config.reward.placement == "server" and config.reward.verify_server and is_main_process():
            verify_student_servers(config, text.students[0], check)

        # 2. Trainer: policy, reference, frozen student, engine.
        keep_earlier_run_apart(config, checkpoint)
        trainer = TeacherRLTrainer(
            config.model_name_or_path,
            grpo_arguments(config, run_context(config)),
            layout=text.layout,
            data=data,
            reward=TeacherReward(
                make=partial(
                    make_reward, students=text.students, check=check, outside=outside, config=config
                ),
                teacher_logprobs=config.reward.teacher_logprobs,
            ),
            parts=rl_parts(pool, config, checkpoint, record),
            settings=rl_settings(config),
            peft_config=lora_config(config.model.lora),
        )

        # 3. Train, and write the model.
        generation = generation_config(text.layout.tokenizer, trainer.stop_token_ids, config.temperature)
        problems = (row.problem for row in data.train)
        layout = teacher_record(config, text.layout, text.students[0].layout, problems)
        train_and_save(trainer, config, checkpoint, SavedWith(generation, layout))
        record.update(problems=len(data.train), held_out=len(data.held_out), skipped=num_skipped)


@dataclass(frozen=True)
class Text:
    """What is known before a model is loaded."""

    layout: TeacherLayout
    students: Sequence[StudentText]
    train_rows: KeptRows[PromptedProblem]
    eval_rows: KeptRows[PromptedProblem] | None


def read_text(config: Config) -> Text:
    """Return layouts and problems; raises for tokenizers, templates and rows that training could not use."""
    layout = read_layout(config)
    students = read_students(config, layout.tokenizer)
    check_contexts(config, layout, students)
    prompted = partial(prompted_problems, teacher=layout, students=students, config=config)
    held_out, problems = read_held_out(config), read_problems(config)
    return Text(layout, students, prompted(problems), prompted(held_out) if held_out else None)


def read_layout(config: Config) -> TeacherLayout:
    """Return the teacher's layout; raises for a tokenizer or a template that training could not use."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    trust, revision = config.model.trust_remote_code, config.model.revision
    tokenizer = load_tokenizer(config.model_name_or_path, revision=revision, trust=trust)
    return teacher_layout(config, tokenizer)


def check_contexts(config: Config, teacher: TeacherLayout | None, students: Sequence[StudentText]) -> None:
    """Raise ConfigError for lengths that do not fit the contexts of the models that are known."""
    context = None
    if teacher is not None:
        trust, revision = config.model.trust_remote_code, config.model.revision
        context = load_context(str(config.model_name_or_path), revision=revision, trust=trust)
    check_lengths(config, context, {s.settings.model: s.context for s in students})


def check(config: Config) -> None:
    """Raise what training would, before it loads a model, as far as models and data are on this machine."""
    functions = load_functions(config)
    layout = read_layout(config) if is_here(config.model_name_or_path) else None
    students = read_students(config, layout.tokenizer if layout else None, here_alone=True)
    check_contexts(config, layout, students)
    prompted = partial(prompted_problems, teacher=layout, students=students, config=config)
    held_out = read_held_out(config) if is_here(config.evaluation.path) else None
    eval_rows = prompted(held_out) if held_out else None
    if is_here(config.dataset_id_or_path):
        data = rl_data(prompted(read_problems(config)), eval_rows, config)
        check_columns(functions, [item.problem for item in (*data.train, *data.held_out)])


def prompted_problems(
    problems: KeptRows[Problem],
    *,
    teacher: TeacherLayout | None,
    students: Sequence[StudentText],
    config: Config,
) -> KeptRows[PromptedProblem]:
    """Return the problems that fit, with their prompt ids; logs how long they are.

    In a dry run teacher and students may be those that are on this machine: without a teacher prompts are
    empty.
    """
    problems = require_systems(problems, config)

    def around(student: StudentText, problem: Problem) -> int:
        after = len(student.layout.suffix(problem).ids)
        if student.settings.name == FIRST:  # the one that answers
            after = max(after, answer_room(student.layout, config.reward.answers))
        return len(student.layout.prefix_ids(problem)) + after

    def lay_out(problem: Problem) -> tuple[PromptedProblem, list[int]]:
        lengths = [around(student, problem) for student in students]
        return PromptedProblem(problem, teacher.prompt_ids(problem) if teacher else []), lengths

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rules: list[LengthRule[tuple[PromptedProblem, list[int]]]] = []
    if teacher is not None:
        limit = config.max_prompt_length
        rules.append(
            LengthRule("prompt tokens", lambda row: len(row[0].prompt_ids), limit, "max_prompt_length")
        )
    for index, student in enumerate(students):
        if student.context is not None:
            room = student.context - config.max_completion_length
            what = f"{student.settings.name} tokens around the explanation"
            where = f"the {student.settings.name}'s context {student.context} less max_completion_length"
            rules.append(LengthRule(what, partial(_length_of, index), room, where))
    return fit_lengths(laid_out, rules, config.data).map(lambda row: row[0])


def _length_of(index: int, row: tuple[PromptedProblem, list[int]]) -> int:
    return row[1][index]


def make_reward(
    trainer: TeacherRLTrainer,
    *,
    students: Sequence[StudentText],
    check: StudentCheck,
    outside: OutsideParts,
    config: Config,
) -> Reward:
    """Return the reward: the students, the frozen ones placed as configured, and what else is paid for."""
    agree = trainer.max_over_processes
    which = own_student(config)
    own = OwnStudent(trainer, which) if which else None
    likelihood = student_reward(config, students, accelerator=trainer.accelerator, agree=agree, own=own)
    if config.reward.verify_server:
        verify_sharded_students(config, students, likelihood, check, Processes(trainer.accelerator, agree))
    return with_components(
        likelihood,
        likelihood.students[0].scorer,
        teacher_bytes=TokenBytes(trainer.layout.tokenizer),
        outside=outside,
        accelerator=trainer.accelerator,
        config=config,
    )
