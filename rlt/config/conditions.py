"""When a setting that a stage reads counts for nothing, because of the value of another one. Data alone.

typed.py refuses such a setting where a user typed it. A value that says "off" (0, null, false, empty) is
allowed beside what makes it void, and so is one of a preset: neither promises anything.

A new condition is one entry in CONDITIONS. It holds in each stage that reads both settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlt.config.schema import BENCHMARKS, LIKELIHOOD, LOCAL_TASK, OWN_STUDENTS
from rlt.config.stage import Stage
from rlt.config.stages import NOTHING

_TASKS = {*BENCHMARKS, LOCAL_TASK}
Counts = Callable[..., bool]
"""(value of the setting, values of the others in their order) -> whether the setting counts."""


@dataclass(frozen=True)
class OnlyWith:
    """Settings that count only while others have certain values."""

    settings: tuple[str, ...]
    """Settings, and sections of which all is meant."""
    others: tuple[str, ...]
    """Those that a stage does not read are skipped."""
    counts: Counts
    instead: tuple[str, ...]
    """For each of `others`, what to type for the setting to count."""
    stages: tuple[str, ...] = ()
    """Stages in which it holds; none: all that read the settings."""

    def concerns(self, name: str) -> bool:
        """Return whether a setting counts only under this condition."""
        return name not in self.others and any(f"{name}.".startswith(f"{s}.") for s in self.settings)

    def read_by(self, name: str, stage: Stage) -> tuple[str, ...]:
        """Return those of `others` that a stage reads; none where the condition does not hold in it."""
        if self.stages and name not in self.stages:
            return ()
        return tuple(other for other in self.others if stage.reads(other))


def is_off(value: Any) -> bool:
    """Return whether a value asks for nothing: 0, null, false, empty, or a list of zeros."""
    return not value or (isinstance(value, list) and not any(value))


def _on(_: Any, *values: Any) -> bool:
    return not all(is_off(value) for value in values)


def _off(_: Any, *values: Any) -> bool:
    return all(is_off(value) for value in values)


def _one_of(*allowed: Any) -> Counts:
    return lambda _, *values: any(value in allowed for value in values)


def _other_than(*void: Any) -> Counts:
    return lambda _, *values: any(value not in void for value in values)


def _likelihood_pays(_: Any, *values: Any) -> bool:
    return any(value == LIKELIHOOD or (isinstance(value, float | int) and value > 0) for value in values)


def _holds(item: str) -> Counts:
    return lambda _, *values: any(item in (value or ()) for value in values)


def _holds_shuffled(_: Any, *values: Any) -> bool:
    """Whether a benchmark is named whose options are shuffled, which one of the user's own may be."""
    named = [item for value in values for item in value or () if item.isidentifier()]  # no files
    return any(item == "gpqa_diamond" or item not in _TASKS for item in named)


def _holds_its_keys(value: Any, *values: Any) -> bool:
    """Whether the others name every task of a mapping; one that does not exist is refused by its own rule."""
    named = {name for listed in values for name in listed or ()}
    return _TASKS.intersection(value) <= named


def _on_the_hub(_: Any, *values: Any) -> bool:
    return any(value and not os.path.exists(os.path.expanduser(value)) for value in values)


def _has_parts(_: Any, *values: Any) -> bool:
    """Whether a source is no single file: a folder or a Hub dataset may have splits and configurations."""
    paths = [path for value in values for path in (value.values() if isinstance(value, dict) else [value])]
    return any(
        path and path != NOTHING["dataset_id_or_path"] and not os.path.isfile(os.path.expanduser(path))
        for path in paths
    )


def _asks_servers(_: Any, *values: Any) -> bool:
    return any(value in ("vllm", "server") or (isinstance(value, list) and value) for value in values)


def _with(settings: tuple[str, ...], other: str, counts: Counts, instead: str) -> OnlyWith:
    return OnlyWith(settings, (other,), counts, (instead,))


def _if_on(settings: tuple[str, ...], other: str, instead: str) -> OnlyWith:
    return _with(settings, other, _on, f"{other}={instead}")


def _if_one_of(settings: tuple[str, ...], other: str, *allowed: str) -> OnlyWith:
    return _with(settings, other, _one_of(*allowed), f"{other}={allowed[0]}")


_DURING = "evaluation.benchmarks"
_EVERY = f"{_DURING}.steps"
_ASKED = ("evaluate.tasks", f"{_DURING}.tasks")
"""Which benchmarks are asked: in the stage evaluate, and while training."""
_BACKEND = "generation.backend"

CONDITIONS: tuple[OnlyWith, ...] = (
    # The optimisation
    _if_on(("model.lora",), "model.lora.rank", "8"),
    _with(("trainer.num_train_epochs",), "trainer.max_steps", _one_of(-1), "trainer.max_steps=-1"),
    _with(  # transformers' get_scheduler hands these three no warm-up
        ("trainer.warmup_steps",),
        "trainer.lr_scheduler_type",
        _other_than("constant", "reduce_lr_on_plateau", "greedy"),
        "trainer.lr_scheduler_type=constant_with_warmup",
    ),
    _if_one_of(("trainer.recompute_above",), "trainer.gradient_checkpointing", "auto"),
    _if_on(("trainer.ref_sync_steps", "trainer.ref_mixup"), "trainer.beta", "0.04"),
    _with(("trainer.ref_mixup",), "model.lora.rank", _off, "model.lora.rank=0"),
    _if_on(("trainer.ref_mixup",), "trainer.ref_sync_steps", "32"),
    _if_one_of(("wandb_project",), "report_to", "wandb", "trackio"),
    # What is read
    _with(
        ("model.revision",), "model_name_or_path", _on_the_hub, "model_name_or_path=OWNER/NAME, on the Hub"
    ),
    _with(("data.revision",), "dataset_id_or_path", _on_the_hub, "dataset_id_or_path=OWNER/NAME, on the Hub"),
    _with(("data.config_name",), "dataset_id_or_path", _has_parts, "dataset_id_or_path=FOLDER"),
    OnlyWith(
        ("data.split",),
        ("dataset_id_or_path", "evaluate.paths"),
        _has_parts,
        ("dataset_id_or_path=FOLDER", "evaluate.paths={TASK: FOLDER}"),
    ),
    _if_on(("data.subset.seed",), "data.subset.n", "1000"),
    _if_on(("evaluation.subset.seed",), "evaluation.subset.n", "64"),
    _if_on(("evaluation.split", "evaluation.subset"), "evaluation.path", "FILE"),
    _if_on(("data.on_contaminated",), "data.decontaminate", "[math500]"),
    OnlyWith(
        ("evaluate.paths", "evaluate.revisions", "evaluate.option_order", "evaluate.benchmarks"),
        ("data.decontaminate", _EVERY),
        _on,
        ("data.decontaminate=[math500]", f"{_EVERY}=100"),
    ),
    OnlyWith(
        ("evaluate.paths", "evaluate.revisions"),
        (*_ASKED, "data.decontaminate"),
        _holds_its_keys,
        (*(f"{tasks}=[…] with all of its names" for tasks in _ASKED), "data.decontaminate=[…] with them"),
    ),
    OnlyWith(
        ("evaluate.option_order",),
        (*_ASKED, "data.decontaminate"),
        _holds_shuffled,
        (*(f"{tasks}=[gpqa_diamond]" for tasks in _ASKED), "data.decontaminate=[gpqa_diamond]"),
    ),
    # Questions: in `evaluate`, and while a student trains
    OnlyWith(
        ("evaluate.prompts",),
        _ASKED,
        _holds_its_keys,
        tuple(f"{tasks}=[…] with all of its names" for tasks in _ASKED),
    ),
    OnlyWith(
        ("evaluate.grader",), _ASKED, _holds("problems"), tuple(f"{tasks}=[problems]" for tasks in _ASKED)
    ),
    _if_on(
        (
            *(_DURING, "evaluate.prompts", "evaluate.grader", "evaluate.unfinished"),
            *("evaluate.extraction", "evaluate.grading_seconds", "evaluate.samples_per_chunk"),
            "evaluate.original",
        ),
        _EVERY,
        "100",
    ),
    OnlyWith(("max_prompt_length",), (_EVERY,), _on, (f"{_EVERY}=100",), stages=("student_sft",)),
    _if_on((f"{_DURING}.top_p",), f"{_DURING}.temperature", "0.6"),
    _if_on(("evaluation.per_device_batch_size", "evaluation.num_generations"), "evaluation.steps", "25"),
    OnlyWith(
        ("evaluation.at_start",),
        ("evaluation.steps", _EVERY),
        _on,
        ("evaluation.steps=25", f"{_EVERY}=100"),
    ),
    # The reward
    _if_on(
        (
            *("reward.solution_span", "reward.answer_transform", "reward.answer_clip"),
            *("reward.answer_baseline", "reward.answer_result_transform", "reward.answer_result_clip"),
            *("reward.answer_length_norm", "reward.answer_group"),
        ),
        "answer_log_prob_coeff",
        "[1,0.01]",
    ),
    OnlyWith(  # a grader alone reads no student
        (*("student_model", "answer_log_prob_coeff", "reward"),),
        ("correctness.grader", "correctness.likelihood_weight"),
        _likelihood_pays,
        ("correctness.grader=likelihood", "correctness.likelihood_weight=0.1"),
        stages=("student_rl",),
    ),
    _with(
        (*("correctness.likelihood_weight", "correctness.format_weight", "correctness.grading_seconds"),),
        "correctness.grader",
        _other_than(LIKELIHOOD),
        "correctness.grader=math",
    ),
    _with(  # the trainer has placed it already
        ("reward.dtype",),
        "student_model",
        _other_than(*OWN_STUDENTS),
        "student_model=FOLDER",
    ),
    _if_on(
        ("reward.kl_transform", "reward.kl_clip", "monitors.max_kl_share", "monitors.min_kl_share"),
        "kl_penalty_reward_coeff",
        "[3,0.03]",
    ),
    _if_one_of(("reward.servers",), "reward.placement", "server"),
    # On-policy distillation
    _if_one_of(("teacher_model",), "opd.teacher", "model"),
    _if_one_of(("opd.ema_share", "opd.ema_steps"), "opd.teacher", "ema"),
    _with(
        ("opd.placement", "opd.servers", "opd.verify_server", "opd.dtype"),
        "opd.teacher",
        _other_than("self"),
        "opd.teacher=model",
    ),
    _if_one_of(("opd.servers",), "opd.placement", "server"),
    _if_one_of(("opd.verify_server",), "opd.placement", "server", "zero3"),
    _if_one_of(("opd.question",), "opd.solution_in", "question"),
    _if_one_of(
        ("layout.teacher_prompt", "layout.show_solution", "opd.open_thought", "opd.answer_coeff"),
        "opd.solution_in",
        "explanation",
    ),
    _if_one_of(("opd.js_share",), "opd.divergence", "js"),
    _if_one_of(("opd.top_k",), "opd.support", "top_k"),
    _if_one_of(("opd.temperature",), "opd.support", "top_k", "full"),
    _if_one_of(("reward.verify_server",), "reward.placement", "server", "zero3"),
    _if_on(("reward.combine",), "reward.students", "[{name: NAME, model: PATH}]"),
    _if_on(("reward.length",), "reward.length.weight", "0.5"),
    _if_on(("reward.copy",), "reward.copy.weight", "0.5"),
    _if_on(("reward.answers",), "reward.answers.weight", "0.5"),
    _with(("reward.text_after_tag_penalty",), "generation.stop_at_tag", _off, "generation.stop_at_tag=false"),
    OnlyWith(
        ("monitors.baseline_steps",),
        ("monitors.max_length_ratio", "monitors.min_length_ratio"),
        _on,
        ("monitors.max_length_ratio=2", "monitors.min_length_ratio=0.5"),
    ),
    # The engine
    _if_on(("generation.top_p", "generation.top_k", "generation.min_p"), "temperature", "0.7"),
    _if_one_of(
        (
            *("generation.servers", "generation.tensor_parallel", "generation.gpu_memory_utilization"),
            *("generation.dtype", "generation.host", "generation.base_port", "generation.server_args"),
            *("generation.startup_timeout", "generation.silence_timeout", "generation.max_restarts"),
            *("generation.weight_sync", "generation.sync_dir", "generation.sync_timeout"),
            *("generation.overlap", "generation.max_staleness", "generation.api"),
            *("collect.requests_per_server", "evaluate.requests_per_server"),
        ),
        _BACKEND,
        "vllm",
    ),
    OnlyWith(
        ("generation.request_timeout", "generation.api_key_file", "generation.allow_open_servers"),
        (_BACKEND, "reward.placement", "reward.answers.servers", "opd.placement"),
        _asks_servers,
        (
            *(f"{_BACKEND}=vllm", "reward.placement=server", "reward.answers.servers=[ADDRESS]"),
            "opd.placement=server",
        ),
    ),
    _with(
        (
            *("generation.tensor_parallel", "generation.gpu_memory_utilization", "generation.host"),
            *("generation.base_port", "generation.server_args", "generation.silence_timeout"),
        ),
        "generation.servers",
        _off,
        "generation.servers=[]",
    ),
    _if_one_of(("generation.sync_dir",), "generation.weight_sync", "checkpoint", "auto"),
    _if_one_of(("generation.api_model", "generation.retry_seconds"), "generation.api", "openai"),
    _if_one_of(("collect.samples_per_chunk", "evaluate.samples_per_chunk"), _BACKEND, "transformers"),
    # Traces, and single questions
    _if_one_of(("select.rank_bucket",), "select.rule", "rank"),
    _if_on(("student_model",), "select.max_length", "16384"),
    OnlyWith(  # no tokens are counted without
        ("layout.chat_template_kwargs", "layout.date"),
        ("select.max_length",),
        _on,
        ("select.max_length=16384",),
        stages=("select_traces",),
    ),
    _with(("show.best", "show.worst"), "show.rows", _off, "show.rows=[]"),
    _if_on(
        ("layout.teacher_prompt", "layout.show_solution", "generation.stop_at_tag"), "infer.solution", '"42"'
    ),
    _with(("layout.student_prompt",), "infer.solution", _off, "infer.solution=null"),
)
