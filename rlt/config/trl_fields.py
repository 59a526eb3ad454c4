"""The arguments of TRL 1.16's SFTConfig and GRPOConfig: a wrong one fails before torch loads.

`trainer_args` may name any field of its stage that no setting of this project decides. A test compares these
names, types and choices with the installed TRL.
"""

from types import NoneType
from typing import Any

from rlt.config.stages import STAGES


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _typed(fields: dict[Any, str]) -> dict[str, Any]:
    """Return the type of each field, from the fields of each type."""
    return {name: kind for kind, names in fields.items() for name in sorted(_names(names))}


_COMMON = _typed(
    {
        bool: """
            auto_find_batch_size average_tokens_across_devices batch_eval_metrics bf16_full_eval
            dataloader_drop_last dataloader_in_order dataloader_persistent_workers dataloader_pin_memory
            do_eval do_predict do_train enable_jit_checkpoint eval_do_concat_batches eval_on_start
            eval_use_gather_object fp16 fp16_full_eval full_determinism gradient_checkpointing
            hub_always_push ignore_data_skip load_best_model_at_end log_on_each_node logging_first_step
            logging_nan_inf_filter prediction_loss_only push_to_hub
            restore_callback_states_from_checkpoint save_on_each_node save_only_model
            skip_memory_metrics torch_compile trust_remote_code use_cache use_cpu use_liger_kernel
        """,
        str | None: """
            dataloader_multiprocessing_context ddp_backend fsdp hub_model_id hub_revision hub_token
            metric_for_best_model optim_args output_dir resume_from_checkpoint run_name
            torch_compile_backend torch_compile_mode trackio_bucket_id trackio_space_id
        """,
        str: """
            eval_strategy hub_strategy length_column_name log_level log_level_replica logging_strategy
            loss_type lr_scheduler_type optim project save_strategy train_sampling_strategy
        """,
        float: """
            adam_beta1 adam_beta2 adam_epsilon eval_delay label_smoothing_factor learning_rate
            logging_steps max_grad_norm num_train_epochs save_steps warmup_steps weight_decay
        """,
        bool | None: """
            bf16 ddp_broadcast_buffers ddp_find_unused_parameters ddp_static_graph disable_tqdm
            greater_is_better hub_private_repo tf32
        """,
        int: """
            dataloader_num_workers ddp_timeout gradient_accumulation_steps local_rank max_steps
            per_device_eval_batch_size per_device_train_batch_size seed
        """,
        dict | str | None: """
            accelerator_config deepspeed fsdp_config gradient_checkpointing_kwargs lr_scheduler_kwargs
            model_init_kwargs
        """,
        int | None: """
            data_seed dataloader_prefetch_factor ddp_bucket_cap_mb eval_accumulation_steps
            save_total_limit torch_empty_cache_steps
        """,
        float | None: "eval_steps neftune_noise_alpha router_aux_loss_coef",
        str | list[str] | None: "optim_target_modules report_to",
        int | str | None: "pad_to_multiple_of",
        NoneType: "parallelism_config",
        str | bool | None: "trackio_static_space_id",
        str | bool: "include_num_input_tokens_seen",
        str | list[str]: "debug",
        list[str] | None: "label_names",
        dict | None: "liger_kernel_config",
        list[str]: "include_for_metrics",
    }
)

SFT_FIELDS = _COMMON | _typed(
    {
        bool: """
            activation_offloading assistant_only_loss packing padding_free remove_unused_columns
            shuffle_dataset
        """,
        str | None: "chat_template_path eos_token pad_token",
        str: "dataset_text_field packing_strategy truncation_mode",
        int | None: "dataset_num_proc max_length",
        bool | None: "completion_only_loss eval_packing",
        dict | str | None: "dataset_kwargs",
    }
)

GRPO_FIELDS = _COMMON | _typed(
    {
        float: """
            beta entropy_coef entropy_coef_delta entropy_coef_max entropy_coef_min entropy_target
            epsilon ref_model_mixup_alpha repetition_penalty sapo_temperature_neg sapo_temperature_pos
            temperature top_entropy_quantile top_p vespo_k_neg vespo_k_pos vespo_lambda_neg
            vespo_lambda_pos vllm_gpu_memory_utilization vllm_server_timeout
        """,
        bool: """
            cast_lm_head_to_fp32 disable_dropout ds3_gather_for_generation log_completions
            log_multimodal log_unique_prompts mask_truncated_completions sync_ref_model
            use_adaptive_entropy use_bias_correction_kl use_transformers_continuous_batching
            use_transformers_paged use_vllm vllm_enable_sleep_mode vllm_importance_sampling_correction
        """,
        int | None: """
            generation_batch_size max_completion_length max_tool_calling_iterations
            num_completions_to_print num_generations num_generations_eval steps_per_generation
            vllm_max_model_length
        """,
        float | None: """
            delta epsilon_high min_p off_policy_mask_threshold vllm_importance_sampling_cap
            vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min
        """,
        str: """
            importance_sampling_level multi_objective_aggregation scale_rewards
            vllm_importance_sampling_mode vllm_mode vllm_model_impl vllm_server_host
        """,
        int: """
            num_iterations ref_model_sync_steps top_k vllm_group_port vllm_server_port
            vllm_tensor_parallel_size
        """,
        str | None: """
            cache_implementation log_completions_hub_repo vllm_server_base_url
            vllm_structured_outputs_regex
        """,
        dict | str | None: """
            chat_template_kwargs generation_kwargs transformers_continuous_batching_config
        """,
        bool | None: "remove_unused_columns shuffle_dataset",
        list[float] | None: "reward_weights",
    }
)

_GENERATION = "the section generation"
_SAMPLES = "nothing: every explanation is in output_dir/samples"

OWNED: dict[str, str] = {
    **{name: name for name in _names("learning_rate per_device_train_batch_size output_dir report_to seed")},
    **{
        name: f"trainer.{name}"
        for name in _names(
            "max_steps num_train_epochs lr_scheduler_type warmup_steps adam_beta1 adam_beta2 adam_epsilon "
            "weight_decay max_grad_norm gradient_checkpointing logging_steps save_steps save_total_limit"
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
    "do_eval": "evaluation.steps",
    "eval_strategy": "evaluation.steps",
    "eval_steps": "evaluation.steps",
    "eval_on_start": "evaluation.at_start",
    "per_device_eval_batch_size": "evaluation.per_device_batch_size",
    "remove_unused_columns": "nothing: unknown columns are always kept",
    "run_name": "output_dir, whose last folder names the run",
    "project": "wandb_project",
    "resume_from_checkpoint": "resume_from",
    "hub_token": "the environment variable HF_TOKEN, so that no secret is saved with the run",
    "deepspeed": "the words zero1 and offload of launch.sh, or an accelerate configuration",
    "fsdp": "an accelerate configuration",
    "fsdp_config": "an accelerate configuration",
    "parallelism_config": "an accelerate configuration",
    "local_rank": "nothing: the launcher sets it",
    "disable_tqdm": "nothing: progress is lines where there is no terminal",
    "auto_find_batch_size": "per_device_train_batch_size",
}
"""Fields that a setting of this project decides, at every stage -> what to use instead."""

SFT_OWNED: dict[str, str] = OWNED | {
    "max_length": "data.max_length",
    "truncation_mode": "data.on_long_row",
    "dataset_text_field": "data.columns",
    "dataset_kwargs": "nothing: rows reach TRL as token ids",
    "completion_only_loss": "nothing: the labels say token by token what the loss counts",
    "assistant_only_loss": "nothing: the labels say token by token what the loss counts",
    "packing": "nothing: rows are never packed",
    "packing_strategy": "nothing: rows are never packed",
    "eval_packing": "nothing: rows are never packed",
    "padding_free": "nothing: rows are padded",
    "eos_token": "nothing: a teacher's turn ends as its chat template says, a student's by distill.turn_end",
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
            "vllm_max_model_length generation_kwargs cache_implementation "
            "use_transformers_continuous_batching transformers_continuous_batching_config "
            "use_transformers_paged"
        ),
        _GENERATION,
    ),
    "chat_template_kwargs": "layout.chat_template_kwargs",
    "reward_weights": "answer_log_prob_coeff and kl_penalty_reward_coeff",
    "log_completions": _SAMPLES,
    "log_completions_hub_repo": _SAMPLES,
    "log_unique_prompts": _SAMPLES,
    "num_completions_to_print": _SAMPLES,
}

OWNED_SOMEWHERE = SFT_OWNED | GRPO_OWNED
"""The same for a name whose stage is not known."""

CHOICES: dict[str, tuple[str, ...]] = {
    "optim": (
        *("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor"),
        *("adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad"),
        *("adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit"),
        *("paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit"),
        *("paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
        *("galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise"),
        *("galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw"),
        *("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw"),
        *("apollo_adamw_layerwise", "stable_adamw"),
    ),
    "hub_strategy": ("end", "every_save", "checkpoint", "all_checkpoints"),
    "loss_type": ("nll", "dft", "chunked_nll"),  # of SFT; trainer.loss_type is that of RL
    "importance_sampling_level": ("token", "sequence"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "ddp_backend": ("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"),
    **dict.fromkeys(
        ("log_level", "log_level_replica"),
        ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    ),
}
"""What the fields may be whose type says less."""

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


def fields_of(stage: str) -> dict[str, Any]:
    """Return the fields that TRL's configuration of a stage has, with their types."""
    return GRPO_FIELDS if STAGES[stage].is_rl else SFT_FIELDS


def owned_of(stage: str) -> dict[str, str]:
    """Return the fields of a stage that settings of this project decide, with what to use instead."""
    return GRPO_OWNED if STAGES[stage].is_rl else SFT_OWNED


def instead(name: str, owned: dict[str, str]) -> str:
    """Return what to do instead of setting a field that is not the user's."""
    text = owned[name]
    return text.removeprefix("nothing: ") if text.startswith("nothing: ") else f"use {text}"
