"""Teacher RL: GRPO with the reward of a frozen student (method sections 3 and 4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from transformers import AutoConfig, PreTrainedTokenizerBase
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig

from rlt.config.schema import Config
from rlt.data.lengths import LengthRule, plan_lengths
from rlt.data.load import count_overlap, load_eval_problems, load_problems
from rlt.data.prompts import student_prompt, teacher_prompt
from rlt.errors import DataError, GenerationError, ModelError
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import TAG_STYLES
from rlt.generation.collective import on_main_process
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.vllm_server import server_log_path
from rlt.generation.weight_sync import make_weight_sync
from rlt.models.frozen import load_frozen
from rlt.models.load import load_tokenizer
from rlt.records import Problem
from rlt.reporting.samples import format_sample, prepare_samples, write_samples
from rlt.rewards.formula import RewardSpec
from rlt.rewards.scorer import StudentScorer
from rlt.stages.common import (
    is_main_process,
    observe,
    progress,
    resume_point,
    run_context,
    run_directory,
)
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
    assert config.student_model is not None, "validate() has asked for a student"
    inputs = {
        "model": (config.model_name_or_path, config.model.revision),
        "student": config.student_model,
        "dataset": (config.dataset_id_or_path, config.data.revision),
        "held_out": config.data.eval_path,
    }
    with run_directory(config, inputs) as record:
        checkpoint = resume_point(config)
        if checkpoint and config.trainer.beta and config.trainer.ref_sync_steps:
            require_reference(checkpoint)  # now, not after minutes of loading models

        # 1. Text: tokenizers and layouts of teacher and student.
        trust = config.model.trust_remote_code
        tokenizer = load_tokenizer(config.model_name_or_path, revision=config.model.revision, trust=trust)
        student_tokenizer = load_tokenizer(config.student_model, trust=trust)
        require_same_tokens(tokenizer, student_tokenizer, config)
        tags = TAG_STYLES[config.layout.tags]
        teacher_layout = TeacherLayout(tokenizer, tags, teacher_prompt(config.layout.teacher_prompt, tags))
        student_layout = StudentLayout(
            student_tokenizer, tags, student_prompt(config.layout.student_prompt, tags)
        )

        # 2. Problems that fit every model's context.
        loaded = load_problems(config.data, config.dataset_id_or_path, tags, need_trace=False)
        held_out = load_eval_problems(config.data, config.dataset_id_or_path, tags, need_trace=False)
        prompted = partial(prompted_problems, teacher=teacher_layout, student=student_layout, config=config)
        data = RLData(prompted(loaded.problems), prompted(held_out.problems) if held_out else [])
        count_overlap([p.problem for p in data.train], [p.problem for p in data.held_out])

        # 3. Trainer: policy, reference, frozen student, engine.
        samples = Path(config.output_dir) / "samples"
        if is_main_process():
            prepare_samples(samples, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
        trainer = TeacherRLTrainer(
            config.model_name_or_path,
            GRPOConfig(**grpo_arguments(config, run_context(config))),
            layout=teacher_layout,
            data=data,
            parts=RLParts(
                make_engine=partial(make_engine, config=config),
                make_scorer=partial(make_scorer, layout=student_layout, config=config),
                write_samples=partial(store_samples, samples),
            ),
            settings=rl_settings(config),
            peft_config=lora_config(config.model.lora),
        )
        trainer.policy.generation_config = generation_config(
            tokenizer, trainer.stop_token_ids, config.temperature
        )
        observe(trainer, config)
        if checkpoint and trainer.reference is not None:
            trainer.reference.load(checkpoint)

        # 4. Train, and write the model.
        train(trainer, checkpoint)
        trainer.engine.close()
        save_final_model(trainer.policy, trainer.accelerator, tokenizer, Path(config.output_dir))
        record.update(problems=len(data.train), held_out=len(data.held_out), skipped=len(loaded.skipped))


def require_same_tokens(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, config: Config
) -> None:
    """Raise ModelError unless student and teacher give every token string the same id."""
    ours, theirs = teacher.get_vocab(), student.get_vocab()
    different = sorted(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    if different:
        raise ModelError(
            f"teacher {config.model_name_or_path!r} and student {config.student_model!r} have different "
            f"vocabularies ({len(different)} tokens, {different[0]!r} among them), and the divergence "
            "compares token by token: choose a student of the same tokenizer family"
        )


def prompted_problems(
    problems: Sequence[Problem], *, teacher: TeacherLayout, student: StudentLayout, config: Config
) -> list[PromptedProblem]:
    """Return the problems that fit, with their prompt ids; prints how long they are."""
    assert config.student_model is not None
    scorable: list[Problem] = []
    prompts, student_lengths = [], []
    for problem in progress(problems, "tokenising"):
        try:
            around = len(student.prefix_ids(problem)) + len(student.suffix(problem).ids)
        except DataError as error:
            if config.data.on_bad_row == "error":
                raise
            logger.warning("skipped: %s", error)
            continue
        scorable.append(problem)
        prompts.append(teacher.prompt_ids(problem))
        student_lengths.append(around)
    if not scorable:
        raise DataError("no problem is left whose solution the student can be asked for")
    prompt_lengths = [len(p) for p in prompts]
    rules = [LengthRule("prompt tokens", prompt_lengths, config.max_prompt_length, "max_prompt_length")]
    context = getattr(AutoConfig.from_pretrained(config.student_model), "max_position_embeddings", None)
    if context is not None:
        room = context - config.max_completion_length
        where = f"the student's context {context} less max_completion_length"
        rules.append(LengthRule("student tokens around the explanation", student_lengths, room, where))
    plan = plan_lengths(rules, config.data.on_long_row)
    for report in plan.reports:
        logger.info("%s", report)
    return [PromptedProblem(scorable[i], prompts[i]) for i in plan.kept]


def make_scorer(trainer: TeacherRLTrainer, *, layout: StudentLayout, config: Config) -> StudentScorer:
    """Return the reward: the frozen student, placed as configured."""
    assert config.student_model is not None
    student = load_frozen(
        config.student_model,
        placement=config.reward.placement,
        dtype=config.reward.dtype,
        attn_implementation=config.model.attn_implementation,
        accelerator=trainer.accelerator,
    )
    return StudentScorer(
        student,
        layout,
        RewardSpec.from_config(config),
        temperature=config.reward.student_temperature,
        tokens_per_batch=config.reward.tokens_per_batch,
        agree=trainer.max_over_processes,
    )


def make_engine(trainer: TeacherRLTrainer, *, config: Config) -> Engine:
    """Return the source of completions: a pool of servers, or the policy itself."""
    generation = config.generation
    stop_strings = (trainer.layout.tags.explanation.close,) if generation.stop_at_tag else ()
    sampling = Sampling(
        temperature=config.temperature,
        max_tokens=config.max_completion_length,
        stop_token_ids=tuple(trainer.stop_token_ids),
        top_p=generation.top_p,
        top_k=generation.top_k,
        min_p=generation.min_p,
        repetition_penalty=generation.repetition_penalty,
        stop_strings=stop_strings,
    )
    if generation.backend == "vllm":
        return _server_engine(trainer, sampling, config)
    plugin = trainer.accelerator.state.deepspeed_plugin
    is_zero3 = plugin is not None and plugin.zero_stage == 3
    tokenizer = trainer.layout.tokenizer

    def policy() -> Any:
        wrapped: Any = trainer.model_wrapped
        return unwrap_model_for_generation(wrapped, trainer.accelerator)

    assert isinstance(tokenizer.pad_token_id, int)
    return LocalEngine(
        policy,
        sampling=sampling,
        pad_token_id=tokenizer.pad_token_id,
        batch_size=config.per_device_train_batch_size,
        decode=lambda ids: str(tokenizer.decode(ids)),
        agree=trainer.max_over_processes if is_zero3 else None,
    )


def _server_engine(trainer: TeacherRLTrainer, sampling: Sampling, config: Config) -> ServerEngine:
    generation = config.generation
    logs = [server_log_path(Path(config.output_dir), urlparse(a).port or 0) for a in generation.servers]
    pool = VLLMPool(
        generation.servers,
        timeout=generation.request_timeout,
        log_paths=[path if path.is_file() else None for path in logs],
    )
    context = config.max_prompt_length + config.max_completion_length

    def check() -> None:
        try:
            pool.check(config.model_name_or_path, context)
        except GenerationError as error:
            raise GenerationError(
                f"{error}; `generation.servers` has to name running servers: leave it out and start "
                "through launch.sh, which starts them"
            ) from error

    on_main_process(trainer.accelerator, check)
    sync = make_weight_sync(
        generation.weight_sync,
        pool,
        device=trainer.accelerator.device,
        directory=Path(generation.sync_dir or Path(config.output_dir) / "weight_sync"),
        timeout=generation.sync_timeout,
    )
    return ServerEngine(trainer.policy, trainer.accelerator, generator=pool, sync=sync, sampling=sampling)


def store_samples(directory: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a table of samples, and show one of it now and then."""
    write_samples(directory, name, rows)
    step = int(name.rpartition("_")[2])
    if not name.startswith("eval") and step % SHOW_SAMPLE_EVERY == 1:
        logger.info("a sample of step %d\n%s", step, format_sample(rows[0]))


def rl_settings(config: Config) -> RLSettings:
    """Return what the trainer reads of the configuration besides TRL's arguments."""
    exact = config.model.dtype == config.generation.dtype == "float32"
    return RLSettings(
        tokens_per_batch=config.reward.tokens_per_batch,
        teacher_logprobs=config.reward.teacher_logprobs,
        ref_sync_steps=config.trainer.ref_sync_steps,
        ref_mixup=config.trainer.ref_mixup,
        drift_limit=config.generation.drift_limit or (0.001 if exact else 0.05),
        eval_num_generations=config.evaluation.num_generations,
    )
