"""Teacher RL: GRPO with the reward of a frozen student (method sections 3 and 4)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from rlt.config.schema import PLAIN_SAMPLING, Config
from rlt.config.validate import check_lengths
from rlt.data.kept import KeptRows
from rlt.data.lengths import LengthRule, fit_lengths
from rlt.data.load import count_overlap, load_eval_problems, load_problems
from rlt.data.prompts import teacher_prompt
from rlt.errors import DataError
from rlt.formats.encode import TokenBytes
from rlt.formats.layout import TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weight_sync import make_weight_sync
from rlt.models.load import load_context, load_tokenizer
from rlt.records import Problem
from rlt.reporting.samples import format_sample, prepare_samples, write_samples
from rlt.rewards.likelihood import Reward
from rlt.rewards.student import StudentText
from rlt.stages.common import (
    is_main_process,
    observe,
    progress,
    resume_point,
    run_context,
    run_directory,
    set_later_checkpoints_aside,
    start_step,
    write_skipped,
)
from rlt.stages.components import (
    OutsideParts,
    answer_room,
    check_columns,
    load_outside_parts,
    with_components,
)
from rlt.stages.engine import check_servers, make_sampling, server_pool
from rlt.stages.student import read_students, student_inputs, student_reward
from rlt.stages.student_placement import verify_student_servers
from rlt.trainers.arguments import grpo_arguments
from rlt.trainers.engine import Engine, LocalEngine, ServerEngine
from rlt.trainers.epochs import train
from rlt.trainers.final_model import generation_config, save_final_model
from rlt.trainers.lora import lora_config
from rlt.trainers.reference import require_reference
from rlt.trainers.teacher_rl import PromptedProblem, RLData, RLParts, RLSettings, TeacherRLTrainer

logger = logging.getLogger(__name__)
SHOW_SAMPLE_EVERY = 10


def run(config: Config) -> None:
    """Train the teacher by RL and write it at the top of the run directory."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    assert config.student_model is not None, "validate() has asked for a student"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        **student_inputs(config),
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.data.eval_path,
    }
    with run_directory(config, inputs) as record:
        # 0. What would fail after minutes of loading models fails now.
        checkpoint = resume_point(config)
        if checkpoint and config.trainer.beta and config.trainer.ref_sync_steps:
            require_reference(checkpoint)
        pool = server_pool(config) if config.generation.backend == "vllm" else None
        if pool and is_main_process():
            check_servers(pool, config)
        outside = load_outside_parts(config, is_main=is_main_process())

        # 1. Text: tokenizers and layouts of teacher and student.
        trust = config.model.trust_remote_code
        tokenizer = load_tokenizer(config.model_name_or_path, revision=config.model.revision, trust=trust)
        tags = TAG_STYLES[config.layout.tags]
        teacher_layout = TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags))
        students = read_students(config, tokenizer)

        # 2. Problems that fit every model's context.
        context = load_context(config.model_name_or_path, revision=config.model.revision, trust=trust)
        check_lengths(config, context, {s.settings.model: s.context for s in students})
        held_out = load_eval_problems(config.data, config.dataset_id_or_path, tags, need_trace=False)
        prompted = partial(prompted_problems, teacher=teacher_layout, students=students, config=config)
        train_rows = prompted(load_problems(config.data, config.dataset_id_or_path, tags, need_trace=False))
        eval_rows = prompted(held_out) if held_out else None
        num_skipped = write_skipped(config, train_rows, eval_rows)
        data = RLData(train_rows.values, eval_rows.values if eval_rows else [])
        count_overlap([p.problem for p in data.train], [p.problem for p in data.held_out])
        check_columns(outside, [item.problem for item in (*data.train, *data.held_out)])
        require_full_step(len(data.train), config)
        if config.reward.placement == "server" and config.reward.verify_server and is_main_process():
            verify_student_servers(config, students[0].layout, [p.problem for p in data.train])

        # 3. Trainer: policy, reference, frozen student, engine.
        output = Path(config.output_dir)
        if is_main_process():
            prepare_samples(output / "samples", start_step(checkpoint))
            set_later_checkpoints_aside(output, start_step(checkpoint))
        trainer = TeacherRLTrainer(
            config.model_name_or_path,
            grpo_arguments(config, run_context(config)),
            layout=teacher_layout,
            data=data,
            parts=RLParts(
                make_engine=partial(make_engine, pool=pool, config=config),
                make_reward=partial(make_reward, students=students, outside=outside, config=config),
                write_samples=partial(store_samples, output / "samples"),
            ),
            settings=rl_settings(config),
            peft_config=lora_config(config.model.lora),
        )
        trainer.policy.generation_config = generation_config(
            tokenizer, trainer.stop_token_ids, config.temperature
        )
        observe(trainer, config)
        if checkpoint:
            trainer.monitors.load(checkpoint)
        if checkpoint and trainer.reference is not None:
            trainer.reference.load(checkpoint)

        # 4. Train, and write the model.
        try:
            train(trainer, checkpoint)
        finally:
            trainer.engine.close()
        save_final_model(trainer.policy, trainer.accelerator, tokenizer, output)
        record.update(problems=len(data.train), held_out=len(data.held_out), skipped=num_skipped)


def prompted_problems(
    problems: KeptRows[Problem], *, teacher: TeacherLayout, students: Sequence[StudentText], config: Config
) -> KeptRows[PromptedProblem]:
    """Return the problems that fit, with their prompt ids; logs how long they are."""

    def around(student: StudentText, problem: Problem) -> int:
        after = len(student.layout.suffix(problem).ids)
        if student is students[0]:  # the one that answers
            after = max(after, answer_room(student.layout, config.reward.answers))
        return len(student.layout.prefix_ids(problem)) + after

    def lay_out(problem: Problem) -> tuple[PromptedProblem, list[int]]:
        lengths = [around(student, problem) for student in students]
        return PromptedProblem(problem, teacher.prompt_ids(problem)), lengths

    laid_out = problems.lay_out(lay_out, config.data, partial(progress, what="tokenising"))
    rules = [
        LengthRule[tuple[PromptedProblem, list[int]]](
            "prompt tokens", lambda row: len(row[0].prompt_ids), config.max_prompt_length, "max_prompt_length"
        )
    ]
    for index, student in enumerate(students):
        if student.context is not None:
            room = student.context - config.max_completion_length
            what = f"{student.settings.name} tokens around the explanation"
            where = f"the {student.settings.name}'s context {student.context} less max_completion_length"
            rules.append(LengthRule(what, partial(_length_of, index), room, where))
    return fit_lengths(laid_out, rules, config.data).map(lambda row: row[0])


def _length_of(index: int, row: tuple[PromptedProblem, list[int]]) -> int:
    return row[1][index]


def require_full_step(num_problems: int, config: Config) -> None:
    """Raise DataError when the problems do not fill one step: training would end before it began."""
    needed = config.train_batch_size // config.num_generations
    if num_problems < needed:
        raise DataError(
            f"{config.dataset_id_or_path} leaves {num_problems} problems to train on, but one step needs "
            f"train_batch_size / num_generations = {needed}: add problems, or lower train_batch_size"
        )


def make_reward(
    trainer: TeacherRLTrainer, *, students: Sequence[StudentText], outside: OutsideParts, config: Config
) -> Reward:
    """Return the reward: the frozen students, placed as configured, and what else the run pays for."""
    likelihood = student_reward(
        config, students, accelerator=trainer.accelerator, agree=trainer.max_over_processes
    )
    return with_components(
        likelihood,
        likelihood.students[0].scorer,
        teacher_bytes=TokenBytes(trainer.layout.tokenizer),
        outside=outside,
        accelerator=trainer.accelerator,
        config=config,
    )


def make_engine(trainer: TeacherRLTrainer, *, pool: VLLMPool | None, config: Config) -> Engine:
    """Return the source of completions: a pool of servers, or the policy itself."""
    sampling = make_sampling(config, trainer.stop_token_ids)
    if pool is None:
        return LocalEngine(
            trainer.policy_for_generation,
            trainer.accelerator,
            sampling=sampling,
            tokenizer=trainer.layout.tokenizer,
            batch_size=config.per_device_train_batch_size,
        )
    sync = make_weight_sync(
        config.generation.weight_sync,
        pool,
        device=trainer.accelerator.device,
        directory=sync_directory(config),
        timeout=config.generation.sync_timeout,
    )
    return ServerEngine(trainer.policy, trainer.accelerator, generator=pool, sync=sync, sampling=sampling)


def sync_directory(config: Config) -> Path:
    """Return this run's own folder for the checkpoint sync; generation.sync_dir may be shared by runs."""
    output = Path(config.output_dir).resolve()
    if config.generation.sync_dir is None:
        return output / "weight_sync"
    return Path(config.generation.sync_dir) / f"{output.name}-{sha256(bytes(output)).hexdigest()[:8]}"


def store_samples(directory: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a table of samples, and show one of it now and then."""
    write_samples(directory, name, rows)
    step = int(name.rpartition("_")[2])
    if not name.startswith("eval") and step % SHOW_SAMPLE_EVERY == 1:
        logger.info("a sample of step %d\n%s", step, format_sample(rows[0]))


def rl_settings(config: Config) -> RLSettings:
    """Return what the trainer reads of the configuration besides TRL's arguments."""
    return RLSettings(
        tokens_per_batch=config.reward.tokens_per_batch,
        teacher_logprobs=config.reward.teacher_logprobs,
        ref_sync_steps=config.trainer.ref_sync_steps,
        ref_mixup=config.trainer.ref_mixup,
        drift_limit=drift_limit(config),
        drift_error=1e-3 if config.reward.teacher_logprobs == "engine" else None,
        mask_truncated=config.trainer.mask_truncated,
        eval_num_generations=config.evaluation.num_generations,
        monitors=config.monitors,
    )


def drift_limit(config: Config) -> float:
    """Return the mean drift above which to warn: what rounding explains, or what the user set."""
    generation = config.generation
    if any(getattr(generation, name) != off for name, off in PLAIN_SAMPLING.items()):
        return math.inf  # the samples are not the policy's own, so the two differ by design
    if generation.drift_limit is not None:
        return generation.drift_limit
    on_server = generation.backend == "vllm"
    exact = config.model.dtype == "float32" and (not on_server or generation.dtype == "float32")
    return 0.001 if exact else 0.05
