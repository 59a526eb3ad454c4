"""The numbers of the released recipe, by hand from method section 4, and what `modern` changes."""

from dataclasses import replace

import pytest
import yaml

from rlt.config.compose import compose
from rlt.config.overrides import CONFIG_DIR

RELEASED = {
    "teacher_sft": {
        "learning_rate": 1e-5,
        "train_batch_size": 16,
        "model": {"dtype": "bfloat16", "attn_implementation": "auto"},
        "data": {"max_length": 16384, "on_long_row": "truncate", "tag_match": "first"},
        "trainer": {
            **{"num_train_epochs": 10, "max_steps": -1, "lr_scheduler_type": "cosine", "warmup_steps": 0.05},
            **{"adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 1e-4, "max_grad_norm": 1.0},
            **{"gradient_checkpointing": True, "grad_accum_dtype": "model"},
        },
        "trainer_args": {
            **{"loss_type": "nll", "label_smoothing_factor": 0.0, "neftune_noise_alpha": None},
            "average_tokens_across_devices": False,
        },
    },
    "teacher_rl": {
        **{"learning_rate": 1e-6, "train_batch_size": 1024, "num_generations": 64, "temperature": 0.7},
        **{"max_prompt_length": 16384, "max_completion_length": 16384},
        **{"answer_log_prob_coeff": [1, 0.01], "kl_penalty_reward_coeff": [3, 0.03]},
        "model": {"dtype": "bfloat16", "attn_implementation": "auto"},
        "trainer": {
            **{"max_steps": 125, "lr_scheduler_type": "constant", "warmup_steps": 0},
            **{"adam_beta1": 0.9, "adam_beta2": 0.999, "weight_decay": 0.0, "max_grad_norm": 1.0},
            **{"beta": 0.04, "ref_sync_steps": 32, "ref_mixup": 0.9, "loss_type": "grpo"},
            **{"scale_rewards": "group", "mask_truncated": False, "gradient_checkpointing": True},
            "grad_accum_dtype": "model",
        },
        "data": {"tag_match": "first"},
        "reward": {
            "solution_span": "released",
            **{"student_temperature": 0.7, "answer_reductions": ["mean", "min"], "kl_estimator": "k1"},
            **{"kl_reductions": ["mean", "max"], "answer_transform": "none", "kl_transform": "none"},
            **{"answer_clip": [], "kl_clip": [], "teacher_logprobs": "policy"},
            **{"missing_tag_penalty": 1.0, "text_after_tag_penalty": 0.0},
        },
        "generation": {
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "stop_at_tag": False},
        },
        "trainer_args": {
            **{"vllm_importance_sampling_correction": False, "use_bias_correction_kl": False},
            **{"importance_sampling_level": "token", "top_entropy_quantile": 1.0, "entropy_coef": 0.0},
        },
    },
}
"""What the method's recipe table says; the files must say it themselves, whatever a default is."""


@pytest.mark.parametrize("stage", RELEASED)
def test_released_files_pin_the_methods_numbers(stage):
    text = (CONFIG_DIR / "trainer_cfg" / f"{stage}_released.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)
    for key, value in RELEASED[stage].items():
        for name, number in value.items() if isinstance(value, dict) else [(None, value)]:
            found = written[key] if name is None else written[key][name]
            found = type(number)(found) if isinstance(number, float) else found  # YAML takes 1e-5 for a text
            assert found == number, f"{key}.{name}"


def test_released_warm_up():
    c = compose(["run_cfg=teacher_sft"])
    assert c.recipe == "released"
    assert c.model_name_or_path == "Qwen/Qwen2.5-7B-Instruct"
    assert c.dataset_id_or_path == "bespokelabs/Bespoke-Stratos-17k"
    assert c.train_batch_size == 16
    assert c.data.max_length == 16384
    assert (c.learning_rate, c.trainer.lr_scheduler_type, c.trainer.warmup_steps) == (1e-5, "cosine", 0.05)
    assert (c.trainer.adam_beta1, c.trainer.adam_beta2) == (0.9, 0.95)
    assert (c.trainer.weight_decay, c.trainer.max_grad_norm) == (1e-4, 1.0)
    assert (c.trainer.num_train_epochs, c.trainer.max_steps) == (10, -1)
    assert c.model.dtype == "bfloat16"
    assert c.trainer.gradient_checkpointing
    assert c.report_to == "wandb"


def test_released_teacher_rl():
    c = compose(["run_cfg=teacher_rl"])
    assert c.recipe == "released"
    assert c.dataset_id_or_path == "bespokelabs/Bespoke-Stratos-17k"
    assert c.student_model == "bespokelabs/Bespoke-Stratos-7B"
    assert (c.train_batch_size, c.num_generations) == (1024, 64)  # 16 prompts a step
    assert c.trainer.max_steps * c.train_batch_size // c.num_generations == 2000  # prompts in all
    assert (c.max_prompt_length, c.max_completion_length) == (16384, 16384)
    assert (c.learning_rate, c.trainer.lr_scheduler_type, c.trainer.warmup_steps) == (1e-6, "constant", 0)
    assert (c.trainer.adam_beta1, c.trainer.adam_beta2) == (0.9, 0.999)
    assert (c.trainer.weight_decay, c.trainer.max_grad_norm) == (0, 1.0)
    assert c.trainer.max_steps == 125
    assert (c.temperature, c.generation.top_p, c.generation.top_k, c.generation.min_p) == (0.7, 1, 0, 0)
    assert c.generation.repetition_penalty == 1
    assert (c.trainer.beta, c.trainer.ref_sync_steps, c.trainer.ref_mixup) == (0.04, 32, 0.9)
    assert (c.trainer.loss_type, c.trainer.scale_rewards) == ("grpo", "group")
    assert (c.answer_log_prob_coeff, c.reward.answer_reductions) == ([1, 0.01], ["mean", "min"])
    assert (c.kl_penalty_reward_coeff, c.reward.kl_reductions) == ([3, 0.03], ["mean", "max"])
    assert (c.reward.student_temperature, c.reward.kl_estimator) == (0.7, "k1")
    assert (c.reward.teacher_logprobs, c.reward.missing_tag_penalty) == ("policy", 1)
    assert (c.generation.stop_at_tag, c.reward.text_after_tag_penalty) == (False, 0)
    assert c.trainer_args["vllm_importance_sampling_correction"] is False
    assert c.trainer_args["use_bias_correction_kl"] is False
    assert c.trainer.mask_truncated is False
    assert c.report_to == "wandb"


def test_modern_changes_the_optimisation_and_of_the_reward_the_span():
    old, new = compose(["run_cfg=teacher_rl"]), compose(["run_cfg=teacher_rl", "recipe=modern"])
    assert (new.trainer.beta, new.trainer.ref_sync_steps, new.trainer.loss_type) == (0, 0, "dapo")
    assert new.trainer_args["vllm_importance_sampling_correction"] is True
    assert new.report_to is None
    assert (old.reward.solution_span, new.reward.solution_span) == ("released", "content")
    assert replace(new.reward, solution_span="released") == old.reward
    assert new.answer_log_prob_coeff == old.answer_log_prob_coeff
    assert new.train_batch_size == old.train_batch_size


@pytest.mark.parametrize("student", ["bespoke_stratos_7b", "qwen2_5_7b_instruct"])
def test_student_presets(student):
    c = compose(["run_cfg=teacher_rl", f"reward_cfg={student}"])
    known = {
        "bespoke_stratos_7b": ("bespokelabs/Bespoke-Stratos-7B", "from_dataset"),
        "qwen2_5_7b_instruct": ("Qwen/Qwen2.5-7B-Instruct", "default"),
    }
    assert (c.student_model, c.layout.student_prompt) == known[student]


@pytest.mark.parametrize("stage", ["teacher_sft", "teacher_rl", "student_sft", "student_rl", "student_opd"])
def test_modern_adds_gradients_up_in_float32(stage):
    assert compose([f"run_cfg={stage}"]).trainer.grad_accum_dtype == "model"  # as the original did
    assert compose([f"run_cfg={stage}", "recipe=modern"]).trainer.grad_accum_dtype == "float32"


@pytest.mark.parametrize("stage", ["teacher_sft", "student_sft"])
def test_modern_averages_over_all_tokens_and_drops_what_is_odd(stage):
    old, new = compose([f"run_cfg={stage}"]), compose([f"run_cfg={stage}", "recipe=modern"])
    assert old.trainer_args["average_tokens_across_devices"] is False
    assert new.trainer_args["average_tokens_across_devices"] is True
    assert (old.data.on_long_row, old.data.tag_match) == ("truncate", "first")
    assert (new.data.on_long_row, new.data.tag_match) == ("drop", "once")
