"""From a key of the original release and its value to our settings, or to the reason for setting nothing.

Names come from rlt/config/renames.py; here are the values that read otherwise, and keys that count only
together with others. What is not here keeps its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rlt.config.original.meaning import FAR, Meaning, gone, plain, shown
from rlt.config.renames import GONE, RENAMED
from rlt.config.tree import rows
from rlt.config.trl_fields import GRPO_FIELDS, GRPO_OWNED, SFT_FIELDS

Values = Mapping[str, Any]
STRATOS = "bespokelabs/Bespoke-Stratos-17k"
STRATOS_ROWS = 16710


def meaning_of(key: str, values: Values, *, stage: str) -> Meaning:
    """Return what a key means in a configuration of the original release for one of our stages.

    `values` are all of its keys with their values; none is a `${reference}` any more.
    """
    value = values[key]
    if key in _CONVERTED:
        try:
            return _CONVERTED[key](value, values)
        except (TypeError, ValueError, AttributeError):  # a text where a number must be, and the like
            return Meaning(note=f"was {shown(value)}, which is not a value for it", differs=True)
    if key in _KNOWN_STAGES and stage not in _KNOWN_STAGES[key]:
        return Meaning(note=f"does not count in {stage}")
    if key in GONE:
        return gone(key, value)
    if key in RENAMED:
        return plain(RENAMED[key], value)
    if key in rows() and rows()[key].section is None:
        return plain(key, value)
    if key in SFT_FIELDS | GRPO_FIELDS and key not in GRPO_OWNED:
        return plain(f"trainer_args.{key}", value)
    return Meaning(
        note="is not known: it is neither a key of the original release nor a setting here", differs=True
    )


_KNOWN_STAGES = {
    "num_generations": ("teacher_rl",),
    "max_prompt_length": ("teacher_rl",),
    "completion_only_training": ("teacher_sft", "student_sft"),
}
"""Keys that count in some stages alone."""


def _model_args(_: Any, __: Values) -> Meaning:
    return Meaning(note="did not reach the trained model in the original release; bf16 decides the dtype")


def _no_eval(_: Any, __: Values) -> Meaning:
    return Meaning(
        note="had no effect, as no held-out rows were read (here: evaluation.path=FILE evaluation.steps=N)"
    )


def _run_name(_: Any, __: Values) -> Meaning:
    return Meaning(note="is not needed: a run is named by the last folder of output_dir")


def _follows(_: Any, __: Values) -> Meaning:
    return Meaning(note="follows from train_batch_size, per_device_train_batch_size and the processes")


def _servers(_: Any, __: Values) -> Meaning:
    return Meaning(note="is not needed: launch.sh starts the servers, and fills generation.servers in")


def _bf16(value: Any, _: Values) -> Meaning:
    return Meaning({"model.dtype": "bfloat16" if value else "float32"})


def _tf32(value: Any, values: Values) -> Meaning:
    if values.get("bf16"):
        return Meaning(note="changes nothing: matrix products are in bfloat16 (trainer_args.tf32 sets it)")
    return Meaning({"trainer_args.tf32": value})


def _peft(value: Any, _: Values) -> Meaning:
    if not value:
        return Meaning(note="is off by default (model.lora.rank=0)")
    return Meaning(
        {"model.lora.rank": 16}, note="TRL's default rank; here adapters are on all linear layers, undropped"
    )


def _tokenizer(value: Any, values: Values) -> Meaning:
    differs = value not in (None, values.get("model_name_or_path"))
    return Meaning(note="has no counterpart: the tokenizer is the model's own", differs=differs)


def _local_data(value: Any, values: Values) -> Meaning:
    if value in (None, values.get("dataset_id_or_path")):
        return Meaning(note="is dataset_id_or_path")
    return Meaning({"dataset_id_or_path": value})


def _data_configs(value: Any, _: Values) -> Meaning:
    first = value[0] if isinstance(value, list) and value else value
    return Meaning(note="means all") if first in ("all", None) else Meaning({"data.config_name": first})


def _style(value: Any, _: Values) -> Meaning:
    if value in ("stratos", "bespoke", None):
        return Meaning({"layout.tags": "bespoke"})
    return Meaning(
        note=f"was {value}, which is a style of your own: see layout.tags and layout.teacher_prompt",
        differs=True,
    )


def _warmup(value: Any, values: Values) -> Meaning:
    if values.get("lr_scheduler_type") == "constant":
        return Meaning(note="has no effect with lr_scheduler_type: constant, there and here")
    return Meaning({"trainer.warmup_steps": value or 0})


def _strategy(what: str) -> Callable[[Any, Values], Meaning]:
    def convert(value: Any, values: Values) -> Meaning:
        if value == "no" and what == "save":
            return Meaning({"trainer.save_steps": 0})
        if value == "epoch" and what == "save":
            return _each_epoch(values)
        if value in ("steps", None):
            return Meaning(note=f"is trainer.{what}_steps")
        return Meaning(note=f"was {shown(value)}, and trainer.{what}_steps counts steps", differs=True)

    return convert


def _each_epoch(values: Values) -> Meaning:
    batch = values.get("train_batch_size")
    if values.get("dataset_id_or_path") == STRATOS and batch:
        steps = math.ceil(STRATOS_ROWS / batch)
        return Meaning(
            {"trainer.save_steps": steps}, note=f"an epoch of {STRATOS_ROWS:,} rows in steps of {batch}"
        )
    return Meaning(
        note="was epoch, and trainer.save_steps counts steps: rows divided by train_batch_size are an epoch",
        differs=True,
    )


def _save_steps(value: Any, values: Values) -> Meaning:
    is_used = values.get("save_strategy") in ("steps", None)
    return (
        Meaning({"trainer.save_steps": value})
        if is_used
        else Meaning(note="does not count beside save_strategy")
    )


def _sync(value: Any, values: Values) -> Meaning:
    return Meaning({"trainer.ref_sync_steps": values.get("ref_model_sync_steps", 64) if value else 0})


def _if_synced(name: str) -> Callable[[Any, Values], Meaning]:
    def convert(value: Any, values: Values) -> Meaning:
        off = Meaning(note="does not count without sync_ref_model")
        return Meaning({name: value}) if values.get("sync_ref_model") else off

    return convert


def _or(name: str, off: Any, *none: Any) -> Callable[[Any, Values], Meaning]:
    """Return a conversion in which None and `none` become our value for off."""
    return lambda value, _: Meaning({name: off if value is None or value in none else value})


def _backend(_: Any, values: Values) -> Meaning:
    uses = any(values.get(key) for key in ("use_vllm", "use_vllm_server"))
    return Meaning({"generation.backend": "vllm" if uses else "transformers"})


def _port(value: Any, _: Values) -> Meaning:
    return (
        Meaning(note="is empty, so free ports are taken")
        if value is None
        else Meaning({"generation.base_port": value})
    )


def _vllm_dtype(value: Any, _: Values) -> Meaning:
    known = {"bfloat16": "bfloat16", "float32": "float32"}
    return (
        Meaning({"generation.dtype": known[value]})
        if value in known
        else Meaning(note="is bfloat16 by default")
    )


def _parallel(value: Any, _: Values) -> Meaning:
    return Meaning({"generation.tensor_parallel": value or 1})


def _engine_flag(_: Any, __: Values) -> Meaning:
    return Meaning(note="did not reach its servers, which vllm_server.py starts with its own defaults")


def _offload(value: Any, values: Values) -> Meaning:
    if not value or values.get("disable_student_offloading") or _is_reference(values):
        return Meaning({"reward.placement": "replicated"})
    return Meaning(
        {"reward.placement": "cpu_offload"},
        note="is for the student here; the launcher's word `offload` keeps the reference in host memory, "
        "with policy and optimizer; the results are the same",
    )


def _student_offload(value: Any, _: Values) -> Meaning:
    return Meaning({"reward.placement": "replicated"}) if value else Meaning(note="is the default")


def _student(value: Any, values: Values) -> Meaning:
    if value is not None:
        return Meaning({"student_model": value})
    if _is_reference(values):
        return Meaning({"student_model": "reference"}, note="null was the reference model")
    return Meaning(
        {"student_model": values.get("model_name_or_path")},
        note="null was the reference model, which moves; with beta 0 there is none here, and it is the model "
        "at the start, frozen",
        differs=bool(values.get("sync_ref_model")),
    )


def _is_reference(values: Values) -> bool:
    """Whether the student is the reference model of the KL term."""
    return values.get("student_model") is None and bool(values.get("beta"))


def _student_kwargs(value: Any, _: Values) -> Meaning:
    dtype = str((value or {}).get("torch_dtype", "")).removeprefix("torch.")
    if dtype in ("bfloat16", "float32"):
        return Meaning({"reward.dtype": dtype})
    return Meaning(
        note="is empty" if not value else "has no counterpart besides reward.dtype", differs=bool(value)
    )


def _transform(name: str) -> Callable[[Any, Values], Meaning]:
    known = {None: "none", "none": "none", "exp": "exp", "exp_norm": "one_minus_exp"}

    def convert(value: Any, _: Values) -> Meaning:
        value = value.lower() if isinstance(value, str) else value
        if value in known:
            return Meaning({name: known[value]})
        return Meaning(note=f"was {value}, and {name} has none, exp, one_minus_exp", differs=True)

    return convert


def _answer_clip(value: Any, values: Values) -> Meaning:
    """There max(f(x), -value) of a log-probability x, here the raw x is clipped before the same f."""
    low = {
        "none": lambda limit: -limit,
        "exp": lambda _: -math.inf,  # exp(x) is never below 0
        "exp_norm": lambda limit: -math.log1p(limit),  # 1 - exp(-x) >= -limit
    }
    return _clipped("reward.answer_clip", value, values.get("normalize_log_prob_fn"), low, lambda x: [x, 0.0])


def _kl_clip(value: Any, values: Values) -> Meaning:
    """There min(f(x), value) of a divergence x, here the raw x is clipped before the same f."""
    high = {
        "none": lambda limit: limit,
        "exp": lambda limit: math.log(limit),
        "exp_norm": lambda limit: math.inf if limit >= 1 else -math.log1p(-limit),  # 1 - exp(-x) <= limit
    }
    return _clipped("reward.kl_clip", value, values.get("normalize_kl_fn"), high, lambda x: [-FAR, x])


def _clipped(
    name: str,
    value: Any,
    transform: Any,
    bounds: Mapping[str, Callable[[float], float]],
    pair: Callable[[float], list[float]],
) -> Meaning:
    bound = bounds.get(str(transform or "none").lower())
    if value is None or bound is None or value <= 0:
        return Meaning({name: []}, differs=value is not None)
    limit = bound(float(value))
    if abs(limit) >= FAR:
        return Meaning({name: []}, note="no log-probability gets there")
    return Meaning({name: pair(limit)})


def _reductions(name: str) -> Callable[[Any, Values], Meaning]:
    return lambda value, _: Meaning({name: [str(item).lower() for item in _list(value)]})


def _coefficients(name: str) -> Callable[[Any, Values], Meaning]:
    return lambda value, _: Meaning({name: _list(value)})


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [item for part in value for item in _list(part)]


def _estimator(_: Any, values: Values) -> Meaning:
    if values.get("include_teacher_think_entropy") is False:
        return Meaning({"reward.kl_estimator": "student_nll"})
    return Meaning({"reward.kl_estimator": "k3" if values.get("use_schulman_kl_estimation") else "k1"})


def _penalty(value: Any, _: Values) -> Meaning:
    if value is not None and value <= 0:
        return Meaning({"reward.missing_tag_penalty": abs(value)})
    return Meaning(note=f"was {shown(value)}, and reward.missing_tag_penalty is subtracted", differs=True)


def _report(value: Any, _: Values) -> Meaning:
    trackers = [name for name in _list(value) if name not in (None, "none")]
    return Meaning({"report_to": trackers[0] if trackers else None})


def _push(value: Any, _: Values) -> Meaning:
    return Meaning({"trainer_args.push_to_hub": True}) if value else Meaning(note="is off by default")


_CONVERTED: dict[str, Callable[[Any, Values], Meaning]] = {
    **dict.fromkeys(
        ("torch_dtype", "attn_implementation", "model_revision", "trust_remote_code"), _model_args
    ),
    **dict.fromkeys(("do_eval", "eval_strategy", "eval_steps", "per_device_eval_batch_size"), _no_eval),
    **dict.fromkeys(("generation_aggregation_steps", "gradient_accumulation_steps"), _follows),
    **dict.fromkeys(("backprop_accumulation_steps", "backprop_accumulation_micro_batch_size"), _follows),
    **dict.fromkeys(("wandb_run_name", "exp_name"), _run_name),
    **dict.fromkeys(("vllm_host", "num_vllm_clients"), _servers),
    **dict.fromkeys(("use_vllm", "use_vllm_server"), _backend),
    **dict.fromkeys(("enable_prefix_caching", "enforce_eager", "vllm_gpu_memory_utilization"), _engine_flag),
    **dict.fromkeys(("use_schulman_kl_estimation", "include_teacher_think_entropy"), _estimator),
    **{"bf16": _bf16, "tf32": _tf32, "use_peft": _peft, "tokenizer_name_or_path": _tokenizer},
    **{
        "dataset_local_directory": _local_data,
        "dataset_configs": _data_configs,
        "system_prompt_style": _style,
    },
    **{"warmup_ratio": _warmup, "save_strategy": _strategy("save"), "save_steps": _save_steps},
    **{"logging_strategy": _strategy("logging"), "sync_ref_model": _sync},
    "ref_model_sync_steps": _if_synced("trainer.ref_sync_steps"),
    "ref_model_mixup_alpha": _if_synced("trainer.ref_mixup"),
    **{"top_k": _or("generation.top_k", 0, -1), "min_p": _or("generation.min_p", 0.0)},
    **{"vllm_port": _port, "vllm_dtype": _vllm_dtype, "ray_tensor_parallelism": _parallel},
    **{"offload_untrained_models": _offload, "disable_student_offloading": _student_offload},
    **{"student_model": _student, "student_model_init_kwargs": _student_kwargs},
    "normalize_log_prob_fn": _transform("reward.answer_transform"),
    "normalize_kl_fn": _transform("reward.kl_transform"),
    **{"clip_log_prob": _answer_clip, "clip_kl": _kl_clip},
    "reduction_log_prob_fn": _reductions("reward.answer_reductions"),
    "reduction_kl_fn": _reductions("reward.kl_reductions"),
    "answer_log_prob_coeff": _coefficients("answer_log_prob_coeff"),
    "kl_penalty_reward_coeff": _coefficients("kl_penalty_reward_coeff"),
    **{"not_matched_penalty": _penalty, "report_to": _report, "push_to_hub": _push},
    "unbias_student_log_probs_temp": _or("reward.student_temperature", 1.0),
}
