"""Names of settings in earlier versions of this project, and keys of the original release.

The former are still understood wherever settings are named (old_words.py). Keys of the original's flat
configuration have another name here, or no use any more; `unknown.py` turns a table entry into the sentence
that the user sees. The original's overrides that are listed in the README work unchanged and are in no table.
"""

from typing import Any

MOVED: dict[str, str] = {
    "data.eval_path": "evaluation.path",
    "data.eval_split": "evaluation.split",
    "data.eval_subset": "evaluation.subset",
    "trainer.eval_steps": "evaluation.steps",
    "trainer.per_device_eval_batch_size": "evaluation.per_device_batch_size",
    "evaluate.during_training.every_steps": "evaluation.benchmarks.steps",
    "evaluate.during_training": "evaluation.benchmarks",
}
"""A setting or section of an earlier version -> its name now; parts before their section."""
MOVED_IN_STAGES: dict[str, str] = {"evaluate.tasks": "evaluation.benchmarks.tasks"}
"""The same where a stage reads the new name and not the old one, which is another setting in other stages."""
OLD_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "eval_cfg": {"held_out": {"evaluation": {"steps": 25, "subset": {"n": 64, "seed": 0}}}},
}
"""Group files of earlier versions, by group: the settings that they were."""

RENAMED: dict[str, str] = {
    "model_revision": "model.revision",
    "torch_dtype": "model.dtype",
    "bf16": "model.dtype",
    "attn_implementation": "model.attn_implementation",
    "trust_remote_code": "model.trust_remote_code",
    "use_peft": "model.lora.rank",
    "tokenizer_name_or_path": "model_name_or_path",
    "dataset_local_directory": "dataset_id_or_path",
    "dataset_configs": "data.config_name",
    "max_seq_length": "data.max_length",
    "system_prompt_style": "layout.tags",
    "max_steps": "trainer.max_steps",
    "num_train_epochs": "trainer.num_train_epochs",
    "gradient_checkpointing": "trainer.gradient_checkpointing",
    "weight_decay": "trainer.weight_decay",
    "adam_beta1": "trainer.adam_beta1",
    "adam_beta2": "trainer.adam_beta2",
    "adam_epsilon": "trainer.adam_epsilon",
    "max_grad_norm": "trainer.max_grad_norm",
    "lr_scheduler_type": "trainer.lr_scheduler_type",
    "lr_scheduler_kwargs": "trainer_args.lr_scheduler_kwargs",
    "warmup_ratio": "trainer.warmup_steps",
    "tf32": "trainer_args.tf32",
    "ddp_timeout": "trainer_args.ddp_timeout",
    "logging_steps": "trainer.logging_steps",
    "logging_strategy": "trainer.logging_steps",
    "save_steps": "trainer.save_steps",
    "save_strategy": "trainer.save_steps",
    "do_eval": "evaluation.steps",
    "eval_strategy": "evaluation.steps",
    "eval_steps": "evaluation.steps",
    "per_device_eval_batch_size": "evaluation.per_device_batch_size",
    "push_to_hub": "trainer_args.push_to_hub",
    "ds3_gather_for_generation": "trainer_args.ds3_gather_for_generation",
    "beta": "trainer.beta",
    "sync_ref_model": "trainer.ref_sync_steps",
    "ref_model_sync_steps": "trainer.ref_sync_steps",
    "ref_model_mixup_alpha": "trainer.ref_mixup",
    "generation_aggregation_steps": "train_batch_size",
    "gradient_accumulation_steps": "train_batch_size",
    "backprop_accumulation_steps": "per_device_train_batch_size",
    "backprop_accumulation_micro_batch_size": "per_device_train_batch_size",
    "top_p": "generation.top_p",
    "top_k": "generation.top_k",
    "min_p": "generation.min_p",
    "repetition_penalty": "generation.repetition_penalty",
    "use_vllm": "generation.backend",
    "use_vllm_server": "generation.backend",
    "vllm_host": "generation.servers",
    "num_vllm_clients": "generation.servers",
    "vllm_port": "generation.base_port",
    "vllm_gpu_memory_utilization": "generation.gpu_memory_utilization",
    "vllm_dtype": "generation.dtype",
    "ray_tensor_parallelism": "generation.tensor_parallel",
    "enable_prefix_caching": "generation.server_args",
    "enforce_eager": "generation.server_args",
    "offload_untrained_models": "reward.placement",
    "disable_student_offloading": "reward.placement",
    "student_model_init_kwargs": "reward.dtype",
    "normalize_log_prob_fn": "reward.answer_transform",
    "normalize_kl_fn": "reward.kl_transform",
    "clip_log_prob": "reward.answer_clip",
    "clip_kl": "reward.kl_clip",
    "reduction_log_prob_fn": "reward.answer_reductions",
    "reduction_kl_fn": "reward.kl_reductions",
    "use_schulman_kl_estimation": "reward.kl_estimator",
    "include_teacher_think_entropy": "reward.kl_estimator",
    "not_matched_penalty": "reward.missing_tag_penalty",
    "unbias_student_log_probs_temp": "reward.student_temperature",
    "wandb_run_name": "output_dir",
    "exp_name": "output_dir",
}

NOTES: dict[str, str] = {
    "bf16": "bfloat16 or float32",
    "torch_dtype": "bfloat16 or float32",
    "use_peft": "0 trains all weights",
    "tokenizer_name_or_path": "the tokenizer is always the model's own",
    "clip_log_prob": "a pair [low, high], or [] for none",
    "clip_kl": "a pair [low, high], or [] for none",
    "normalize_log_prob_fn": "none, exp or one_minus_exp",
    "normalize_kl_fn": "none, exp or one_minus_exp",
    "not_matched_penalty": "a positive number that is subtracted",
    "use_schulman_kl_estimation": "true is k3, false is k1",
    "include_teacher_think_entropy": "false is student_nll",
    "sync_ref_model": "0 is off",
    "warmup_ratio": "a value below 1 is a fraction of the steps",
    "save_strategy": "0 keeps only the final model",
    "do_eval": "0 is off",
    "eval_strategy": "0 is off",
    "offload_untrained_models": "true is cpu_offload, for the student; the launcher's word `offload` keeps "
    "the reference in host memory, with policy and optimizer",
    "disable_student_offloading": "true is replicated",
    "generation_aggregation_steps": "one generation always serves one optimizer step",
    "gradient_accumulation_steps": "the accumulation follows from it",
    "use_vllm": "vllm or transformers",
    "use_vllm_server": "vllm or transformers",
    "vllm_host": "a list of addresses, which launch.sh fills in",
    "num_vllm_clients": "a list of addresses, which launch.sh fills in",
    "enforce_eager": "[--enforce-eager]",
    "enable_prefix_caching": "[--no-enable-prefix-caching]",
    "system_prompt_style": "a tag style; the prompts are layout.teacher_prompt and layout.student_prompt",
    "wandb_run_name": "its last folder names the run",
    "exp_name": "its last folder names the run",
}
"""What a new name's value looks like where it is not the old one's."""

_ALWAYS = "is always so here"
_NAMES = "is not needed: a run is named by the last folder of output_dir"
_ENGINE = "is not needed: launch.sh starts the vLLM servers and chooses this itself"

GONE: dict[str, str] = {
    "shuffle_generation_inputs": "has no counterpart: it dealt the requests of one step to the servers at "
    "random, and here all completions of a problem are one request (the order of the problems is decided by "
    "seed alone, in both)",
    "load_in_4bit": "has no counterpart: model.lora.rank saves memory instead",
    "unsafe_tokenizer_loading": "has no counterpart: a tokenizer without a padding token is an error",
    "model_log_name": _NAMES,
    "data_log_name": _NAMES,
    "trainer_log_name": _NAMES,
    "reward_log_name": _NAMES,
    "log_ctx_name": _NAMES,
    "wandb_group_name": _NAMES,
    "completion_only_training": f"{_ALWAYS}: the loss is on the explanation only",
    "mask_teacher_answer": f"{_ALWAYS}: the loss is on the explanation only",
    "custom_start_of_response": "is not needed: token spans are known by construction",
    "return_student_prompt_info": f"{_ALWAYS}: the student's prompt travels with each problem",
    "add_text_completions": "has no counterpart: rows are built from token ids",
    "keep_columns": f"{_ALWAYS}: columns that the framework does not know reach the reward",
    "add_dataset_indices": f"{_ALWAYS}: each problem has an id",
    "gradient_checkpointing_kwargs": f"{_ALWAYS}: checkpointing is non-reentrant",
    "packing": "has no counterpart: rows are never packed",
    "artificial_epochs": "has no counterpart: set trainer.max_steps",
    "model_init_kwargs": "has no counterpart: set model.dtype, model.attn_implementation or model.revision",
    "remove_unused_columns": f"{_ALWAYS}: columns that the framework does not know reach the reward",
    "vllm_device": _ENGINE,
    "vllm_max_model_len": _ENGINE,
    "vllm_group_port": _ENGINE,
    "vllm_sleep_level": _ENGINE,
    "use_ray": _ENGINE,
    "ray_share_training_devices": _ENGINE,
    "ray_data_parallelism": _ENGINE,
    "ray_no_memory_duplication": _ENGINE,
    "reward_weights": "has no counterpart: the parts are weighted by answer_log_prob_coeff and "
    "kl_penalty_reward_coeff",
    "unbias_log_probabilities": f"{_ALWAYS}: log-probabilities are those at the sampling temperature",
    "unbias_teacher_log_probs": f"{_ALWAYS}: log-probabilities are those at the sampling temperature",
    "positive_kl_estimation": "has no counterpart: reward.kl_estimator=k3 is never negative",
    "log_completions": f"{_ALWAYS}: every explanation is in output_dir/samples with its scores",
    "save_completions_probability": f"{_ALWAYS}: every explanation is in output_dir/samples with its scores",
    "logging_prob": f"{_ALWAYS}: every explanation is in output_dir/samples with its scores",
    "activate_debugging_logs": "has no counterpart",
    "correct_generation_coeff": "has no counterpart: the reward does not sample the student",
    "correct_generation_rollouts": "has no counterpart: the reward does not sample the student",
    "student_generation_kwargs": "has no counterpart: the reward does not sample the student",
    "student_generation_check_stategy": "has no counterpart: the reward does not sample the student",
    "formatting_sub_rewards": "has no counterpart: see reward.missing_tag_penalty",
    "evaluate_refined_solution": "has no counterpart",
    "use_reference_teacher_model": "has no counterpart: the teacher's side is the policy, or the engine "
    "with reward.teacher_logprobs=engine",
    "save_final_model": f"{_ALWAYS}: the final model is written to output_dir",
    "tags": "has no counterpart",
    "call_post_training": "has no counterpart",
    "tokenizer": "has no counterpart: no class is named in a configuration",
    "make_tokenizer_fn": "has no counterpart: no class is named in a configuration",
    "make_dataset_fn": "has no counterpart: no class is named in a configuration",
    "model_args": "has no counterpart: set model.dtype, model.attn_implementation or model.revision",
    "peft_config": "has no counterpart: set model.lora.rank",
    "reward_fns": "has no counterpart: the reward is configured in the section reward",
    "teacher_reward": "has no counterpart: the reward is configured in the section reward",
}

SAME_FILES: dict[str, dict[str, str]] = {
    "model_cfg": {
        "qwen3bi": "qwen2_5_3b_instruct",
        "qwen7bi": "qwen2_5_7b_instruct",
        "qwen32bi": "qwen2_5_32b_instruct",
    },
    "data_cfg": {"teacher_bespoke_stratos": "bespoke_stratos"},
}
"""Group files of the original release by group, and those that mean the same here: the old names work."""

_CUSTOM = "`data_cfg=columns`, or only dataset_id_or_path=PATH"
_IN_ALL = "in every run file here"
OTHER_FILES: dict[str, dict[str, str]] = {
    "model_cfg": {"base": _IN_ALL},
    "data_cfg": {
        "base": _IN_ALL,
        "teacher": "the stages teacher_sft and teacher_rl here",
        "teacher_custom": _CUSTOM,
        "custom_bespoke_stratos": _CUSTOM,
    },
    "trainer_cfg": {
        "base": _IN_ALL,
        "base_sft": "`trainer_cfg=teacher_sft_released` here, or student_sft_released for a student",
        "grpo": "`trainer_cfg=teacher_rl_released` here",
        "teacher_grpo": "`trainer_cfg=teacher_rl_released` here",
    },
    "reward_cfg": {
        "teacher_logprob_kl": "the section `reward` here (numbers: trainer_cfg=teacher_rl_released; student: "
        "reward_cfg=bespoke_stratos_7b)"
    },
    "run_cfg": {"default": "an empty run file, and a run file says its stage here: take run_cfg=teacher_sft"},
}
"""Group files that mean something else here, and the settings that replace them."""
