"""The values of the original release's configuration files (SakanaAI/RLT at 86a3f5c), as facts.

What only wires its classes together (`_target_`, names of logs) is skipped. A test compares all of it with
what Hydra composes in a checkout.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

ROOT: Values = {
    **{"save_final_model": False, "save_strategy": "no", "save_steps": 25, "push_to_hub": False},
    **{"logging_strategy": "steps", "logging_steps": 5, "report_to": "wandb", "wandb_project": "rl4lm"},
    **{"results_dir": "results", "resume_from": None, "seed": 42},
    "output_dir": "${results_dir}/${wandb_project}/${wandb_group_name}/${wandb_run_name}/${exp_name}",
}
DEFAULTS = {"model_cfg": "qwen3bi", "data_cfg": "teacher_bespoke_stratos", "trainer_cfg": "base_sft"}
"""The files that a run file gets where it chooses none."""

_DATA: Values = {
    **{"dataset_id_or_path": "bespokelabs/Bespoke-Stratos-17k", "dataset_configs": ["all"]},
    **{"completion_only_training": True, "keep_columns": None, "add_dataset_indices": False},
}
_CUSTOM: Values = {**_DATA, "dataset_id_or_path": None}
_TEACHER: Values = {
    **{"system_prompt_style": "stratos", "mask_teacher_answer": True, "return_student_prompt_info": True},
    "add_text_completions": False,
}
_MODEL: Values = {"use_peft": False, "load_in_4bit": False, "unsafe_tokenizer_loading": False}
_BASE: Values = {
    **{"max_steps": 450, "num_train_epochs": 1, "train_batch_size": 64, "per_device_train_batch_size": 2},
    **{"gradient_checkpointing": True, "learning_rate": 5e-7, "weight_decay": 0, "adam_beta1": 0.9},
    **{"adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "lr_scheduler_type": "cosine"},
    **{"lr_scheduler_kwargs": None, "warmup_ratio": 0.03, "bf16": True, "tf32": True, "ddp_timeout": 18000},
}
_SFT: Values = {
    **_BASE,
    **{"max_steps": -1, "max_seq_length": 4096, "save_strategy": "epoch", "save_steps": 1, "do_eval": True},
    **{"ddp_timeout": 180000000, "per_device_train_batch_size": 4, "learning_rate": 2e-4},
    **{"lr_scheduler_type": "constant", "warmup_ratio": 0.1, "packing": True},
}
_GRPO: Values = {
    **_BASE,
    **{"max_steps": 200, "train_batch_size": 252, "per_device_train_batch_size": 3, "learning_rate": 1e-6},
    **{"artificial_epochs": 1, "num_generations": None, "beta": 0.04, "model_init_kwargs": None},
    **{"remove_unused_columns": False, "max_prompt_length": 2048, "max_completion_length": 16384},
    **{"shuffle_generation_inputs": True, "ds3_gather_for_generation": True, "temperature": 1.0},
    **{"top_p": 1.0, "top_k": None, "min_p": None, "repetition_penalty": 1.0},
    **{"generation_aggregation_steps": None, "use_vllm": True, "vllm_device": "auto"},
    **{"vllm_gpu_memory_utilization": 0.9, "vllm_dtype": "auto", "vllm_max_model_len": None},
    **{"use_ray": False, "ray_share_training_devices": False, "ray_tensor_parallelism": 1},
    **{"ray_data_parallelism": None, "ray_no_memory_duplication": False, "vllm_sleep_level": 0},
    **{"enable_prefix_caching": False, "enforce_eager": True, "use_vllm_server": False, "vllm_host": None},
    **{"vllm_port": None, "vllm_group_port": 51216, "num_vllm_clients": 1, "reward_weights": None},
    **{"sync_ref_model": False, "ref_model_mixup_alpha": 0.9, "ref_model_sync_steps": 64},
    **{"backprop_accumulation_steps": None, "backprop_accumulation_micro_batch_size": None},
    **{"offload_untrained_models": False, "unbias_log_probabilities": True, "log_completions": False},
    **{"save_completions_probability": None, "activate_debugging_logs": False},
}
_REWARD: Values = {
    **{"answer_log_prob_coeff": [5, 0.05], "kl_penalty_reward_coeff": [5, 0.05]},
    **{"normalize_log_prob_fn": None, "clip_log_prob": 100000, "normalize_kl_fn": None, "clip_kl": 100000},
    **{"reduction_log_prob_fn": ["mean", "min"], "reduction_kl_fn": ["mean", "max"]},
    **{"use_schulman_kl_estimation": False, "not_matched_penalty": -1.0, "unbias_teacher_log_probs": True},
    **{"unbias_student_log_probs_temp": 0.7, "include_teacher_think_entropy": True},
    **{"correct_generation_coeff": 0.0, "correct_generation_rollouts": 8, "formatting_sub_rewards": []},
    **{"student_generation_check_stategy": "ground_truth", "evaluate_refined_solution": False},
}
_TEACHER_GRPO: Values = {
    **{**_GRPO, **_REWARD},
    **{"logging_prob": 0.1, "student_model": None, "use_reference_teacher_model": False},
    **{"student_model_init_kwargs": None, "completion_only_training": False},
    "disable_student_offloading": False,
}
GROUPS: dict[str, dict[str, Values]] = {
    "model_cfg": {
        "base": _MODEL,
        "qwen3bi": {**_MODEL, "model_name_or_path": "Qwen/Qwen2.5-3B-Instruct"},
        "qwen7bi": {**_MODEL, "model_name_or_path": "Qwen/Qwen2.5-7B-Instruct"},
        "qwen32bi": {**_MODEL, "model_name_or_path": "Qwen/Qwen2.5-32B-Instruct"},
    },
    "data_cfg": {
        "bespoke_stratos": _DATA,
        "custom_bespoke_stratos": _CUSTOM,
        "teacher_bespoke_stratos": {**_DATA, **_TEACHER},
        "teacher_custom": {**_CUSTOM, **_TEACHER},
    },
    "trainer_cfg": {"base_sft": _SFT, "grpo": _GRPO, "teacher_grpo": _TEACHER_GRPO},
}
"""Group -> file -> what it sets, with what it builds on."""

RUN_FILES: dict[str, tuple[dict[str, str], Values]] = {
    "teacher_sft": (
        {"trainer_cfg": "base_sft", "model_cfg": "qwen7bi"},
        {
            **{"bf16": True, "tf32": True, "num_train_epochs": 10, "save_strategy": "epoch", "save_steps": 1},
            **{"do_eval": False, "eval_strategy": "steps", "eval_steps": 100, "train_batch_size": 16},
            **{"per_device_train_batch_size": 1, "gradient_checkpointing": True, "learning_rate": 1e-5},
            **{"weight_decay": 1e-4, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8},
            **{"max_grad_norm": 1.0, "lr_scheduler_type": "cosine", "warmup_ratio": 0.05},
            **{"logging_steps": 1, "logging_strategy": "steps", "packing": False, "max_seq_length": 16384},
            **{"per_device_eval_batch_size": 4, "wandb_project": "rl4lm_sft"},
            "output_dir": "${results_dir}/pre_rl_model",
        },
    ),
    "teacher_rlt": (
        {"trainer_cfg": "teacher_grpo", "model_cfg": "qwen7bi"},
        {
            **{"model_name_or_path": "results/pre_rl_model", "bf16": True, "max_steps": 125},
            **{"num_train_epochs": 1.0, "save_strategy": "steps", "save_steps": 25, "do_eval": True},
            **{"save_final_model": True, "eval_strategy": "steps", "eval_steps": 4, "logging_steps": 1},
            **{"logging_strategy": "steps", "train_batch_size": 1024, "per_device_train_batch_size": 1},
            **{"generation_aggregation_steps": 256, "num_generations": 64, "temperature": 0.7},
            **{"unbias_log_probabilities": True, "learning_rate": 1e-6, "beta": 0.04},
            **{"sync_ref_model": True, "ref_model_mixup_alpha": 0.9, "ref_model_sync_steps": 32},
            **{"student_model": "bespokelabs/Bespoke-Stratos-7B", "student_model_init_kwargs": None},
            **{"offload_untrained_models": True, "max_prompt_length": 16384, "max_completion_length": 16384},
            **{"answer_log_prob_coeff": [1, 0.01], "kl_penalty_reward_coeff": [3, 0.03]},
            **{"save_completions_probability": 0.1, "lr_scheduler_type": "constant"},
            **{"wandb_project": "rl4lm_teacher", "output_dir": "${results_dir}/rlt_teacher/${exp_name}"},
            **{"vllm_port": 8765, "use_vllm": False, "use_vllm_server": True, "vllm_host": None},
            "num_vllm_clients": None,
        },
    ),
}
"""Run file -> the groups that it chooses, and what it sets."""


def effective(choices: dict[str, str], own: Values) -> Values:
    """Return what a run file comes to: root, the chosen groups in their order, and its own values."""
    chosen = [GROUPS[group].get(choices.get(group, name), {}) for group, name in DEFAULTS.items()]
    merged = dict(ROOT)
    for values in (*chosen, own):
        merged |= values
    return merged


def released(run_file: str) -> Values:
    """Return what a released run file comes to."""
    return effective(*RUN_FILES[run_file])
