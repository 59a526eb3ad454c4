"""The arguments of TRL 1.16's SFTConfig and GRPOConfig: a wrong one fails before torch loads.

`trainer_args` may name any field of its stage that no setting of ours decides. A test compares these
names with the installed TRL.
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON = _names(
    """
    accelerator_config adam_beta1 adam_beta2 adam_epsilon auto_find_batch_size average_tokens_across_devices
    batch_eval_metrics bf16 bf16_full_eval data_seed dataloader_drop_last dataloader_in_order
    dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers
    dataloader_pin_memory dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb
    ddp_find_unused_parameters ddp_static_graph ddp_timeout debug deepspeed disable_tqdm do_eval do_predict
    do_train enable_jit_checkpoint eval_accumulation_steps eval_delay eval_do_concat_batches eval_on_start
    eval_steps eval_strategy eval_use_gather_object fp16 fp16_full_eval fsdp fsdp_config full_determinism
    gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs greater_is_better
    hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token ignore_data_skip
    include_for_metrics include_num_input_tokens_seen label_names label_smoothing_factor learning_rate
    length_column_name liger_kernel_config load_best_model_at_end local_rank log_level log_level_replica
    log_on_each_node logging_first_step logging_nan_inf_filter logging_steps logging_strategy loss_type
    lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps metric_for_best_model model_init_kwargs
    neftune_noise_alpha num_train_epochs optim optim_args optim_target_modules output_dir pad_to_multiple_of
    parallelism_config per_device_eval_batch_size per_device_train_batch_size prediction_loss_only project
    push_to_hub remove_unused_columns report_to restore_callback_states_from_checkpoint
    resume_from_checkpoint router_aux_loss_coef run_name save_on_each_node save_only_model save_steps
    save_strategy save_total_limit seed shuffle_dataset skip_memory_metrics tf32 torch_compile
    torch_compile_backend torch_compile_mode torch_empty_cache_steps trackio_bucket_id trackio_space_id
    trackio_static_space_id train_sampling_strategy trust_remote_code use_cache use_cpu use_liger_kernel
    warmup_steps weight_decay
    """
)

SFT_FIELDS = _COMMON | _names(
    """
    activation_offloading assistant_only_loss chat_template_path completion_only_loss dataset_kwargs
    dataset_num_proc dataset_text_field eos_token eval_packing max_length packing packing_strategy pad_token
    padding_free truncation_mode
    """
)

GRPO_FIELDS = _COMMON | _names(
    """
    beta cache_implementation cast_lm_head_to_fp32 chat_template_kwargs delta disable_dropout
    ds3_gather_for_generation entropy_coef entropy_coef_delta entropy_coef_max entropy_coef_min
    entropy_target epsilon epsilon_high generation_batch_size generation_kwargs importance_sampling_level
    log_completions log_completions_hub_repo log_multimodal log_unique_prompts mask_truncated_completions
    max_completion_length max_tool_calling_iterations min_p multi_objective_aggregation
    num_completions_to_print num_generations num_generations_eval num_iterations off_policy_mask_threshold
    ref_model_mixup_alpha ref_model_sync_steps repetition_penalty reward_weights sapo_temperature_neg
    sapo_temperature_pos scale_rewards steps_per_generation sync_ref_model temperature top_entropy_quantile
    top_k top_p transformers_continuous_batching_config use_adaptive_entropy use_bias_correction_kl
    use_transformers_continuous_batching use_transformers_paged use_vllm vespo_k_neg vespo_k_pos
    vespo_lambda_neg vespo_lambda_pos vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_group_port
    vllm_importance_sampling_cap vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min
    vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_max_model_length vllm_mode
    vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout
    vllm_structured_outputs_regex vllm_tensor_parallel_size
    """
)

_GENERATION = "the section generation"
_SAMPLES = "nothing: every explanation is in output_dir/samples"

OWNED: dict[str, str] = {
    **{name: name for name in _names("learning_rate per_device_train_batch_size output_dir report_to seed")},
    **{
        name: f"trainer.{name}"
        for name in _names(
            "max_steps num_train_epochs lr_scheduler_type warmup_steps adam_beta1 adam_beta2 adam_epsilon "
            "weight_decay max_grad_norm gradient_checkpointing logging_steps save_steps save_total_limit "
            "eval_steps per_device_eval_batch_size"
        )
    },
    "gradient_accumulation_steps": "train_batch_size",
    "gradient_checkpointing_kwargs": "nothing: checkpointing is always non-reentrant",
    "data_seed": "seed",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "use_cpu": "nothing: the device is what the machine has",
    "model_init_kwargs": "model.dtype, model.attn_implementation or model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "logging_strategy": "trainer.logging_steps",
    "save_strategy": "trainer.save_steps",
    "do_eval": "trainer.eval_steps",
    "eval_strategy": "trainer.eval_steps",
    "eval_on_start": "evaluation.at_start",
    "remove_unused_columns": "nothing: unknown columns are always kept",
    "run_name": "output_dir, whose last folder names the run",
    "project": "wandb_project",
    "resume_from_checkpoint": "resume_from",
    "hub_token": "the environment variable HF_TOKEN, so that no secret is saved with the run",
    "deepspeed": "the words zero1 and offload of launch.sh, or an accelerate configuration",
    "fsdp": "an accelerate configuration",
    "fsdp_config": "an accelerate configuration",
    "local_rank": "nothing: the launcher sets it",
    "disable_tqdm": "nothing: progress is lines where there is no terminal",
    "auto_find_batch_size": "per_device_train_batch_size",
}
"""Fields that a setting of ours decides, at every stage -> what to use instead."""

SFT_OWNED: dict[str, str] = OWNED | {
    "max_length": "data.max_length",
    "truncation_mode": "data.on_long_row",
    "dataset_text_field": "data.columns",
    "dataset_kwargs": "nothing: rows reach TRL as token ids",
    "completion_only_loss": "nothing: the loss is on the explanation only",
    "assistant_only_loss": "nothing: the loss is on the explanation only",
    "packing": "nothing: rows are never packed",
    "packing_strategy": "nothing: rows are never packed",
    "eval_packing": "nothing: rows are never packed",
    "padding_free": "nothing: rows are padded",
    "eos_token": "nothing: the end of a turn is the chat template's",
    "pad_token": "nothing: the padding token is the tokenizer's",
    "chat_template_path": "nothing: the chat template is the model's",
}

GRPO_OWNED: dict[str, str] = OWNED | {
    **{name: name for name in _names("num_generations temperature max_completion_length")},
    **{name: f"trainer.{name}" for name in _names("beta loss_type scale_rewards")},
    **{name: f"generation.{name}" for name in _names("top_p top_k min_p repetition_penalty")},
    "num_generations_eval": "evaluation.num_generations",
    "mask_truncated_completions": "trainer.mask_truncated",
    "sync_ref_model": "trainer.ref_sync_steps",
    "ref_model_sync_steps": "trainer.ref_sync_steps",
    "ref_model_mixup_alpha": "trainer.ref_mixup",
    "generation_batch_size": "train_batch_size",
    "steps_per_generation": "train_batch_size",
    "num_iterations": "nothing: one generation serves exactly one update",
    "use_vllm": "generation.backend",
    "vllm_mode": "generation.backend",
    "vllm_server_base_url": "generation.servers",
    "vllm_server_host": "generation.servers",
    "vllm_server_port": "generation.servers",
    "vllm_server_timeout": "generation.startup_timeout",
    "vllm_gpu_memory_utilization": "generation.gpu_memory_utilization",
    "vllm_tensor_parallel_size": "generation.tensor_parallel",
    **dict.fromkeys(
        _names(
            "vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_group_port "
            "vllm_max_model_length generation_kwargs chat_template_kwargs cache_implementation "
            "use_transformers_continuous_batching transformers_continuous_batching_config "
            "use_transformers_paged"
        ),
        _GENERATION,
    ),
    "reward_weights": "answer_log_prob_coeff and kl_penalty_reward_coeff",
    "log_completions": _SAMPLES,
    "log_completions_hub_repo": _SAMPLES,
    "log_unique_prompts": _SAMPLES,
    "num_completions_to_print": _SAMPLES,
}

LOSS_TYPES = ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
"""What trainer.loss_type may be."""

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)
"""What trainer.lr_scheduler_type may be."""


def fields_of(stage: str) -> frozenset[str]:
    """Return the names that TRL's configuration of a stage has."""
    return GRPO_FIELDS if stage == "teacher_rl" else SFT_FIELDS


def owned_of(stage: str) -> dict[str, str]:
    """Return the fields of a stage that settings of ours decide, with what to use instead."""
    return GRPO_OWNED if stage == "teacher_rl" else SFT_OWNED
