"""Our settings arrive in TRL's configurations, and TRL accepts them."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlt.config.compose import compose
from rlt.config.trl_fields import GRPO_FIELDS, SFT_FIELDS
from rlt.trainers.arguments import (
    RunContext,
    gradient_accumulation,
    group_limit,
    grpo_arguments,
    sft_arguments,
)
from rlt.trainers.recipe_diff import as_table, differences, prompt_lines

SFT = ["run_cfg=teacher_sft", "report_to=null"]
RL = ["run_cfg=teacher_rl", "report_to=null"]


def cpu(num_processes: int, *, deepspeed: bool = False) -> RunContext:
    return RunContext(num_processes, use_cpu=True, deepspeed=deepspeed)


def test_one_generation_serves_one_step():
    # 1,024 completions on 4 processes, one at a time: 256 forward passes make the step.
    arguments = grpo_arguments(compose(RL), cpu(4))
    assert arguments["gradient_accumulation_steps"] == 256
    assert arguments["steps_per_generation"] == 256
    assert arguments["num_iterations"] == 1
    assert gradient_accumulation(compose([*RL, "per_device_train_batch_size=8"]), 4) == 32


def test_grpo_config_holds_the_released_recipe():
    from trl.trainer.grpo_config import GRPOConfig

    config = GRPOConfig(**grpo_arguments(compose(RL), cpu(1)))
    assert (config.generation_batch_size, config.steps_per_generation) == (1024, 1024)
    assert (config.beta, config.loss_type, config.scale_rewards) == (0.04, "grpo", "group")
    assert (config.temperature, config.top_p, config.top_k, config.min_p) == (0.7, 1.0, 0, None)
    assert (config.num_generations, config.max_completion_length) == (64, 16384)
    assert (config.use_vllm, config.sync_ref_model, config.disable_dropout) == (False, False, False)
    assert (config.vllm_importance_sampling_correction, config.use_bias_correction_kl) == (False, False)
    assert (config.adam_beta2, config.weight_decay, config.max_grad_norm) == (0.999, 0.0, 1.0)
    assert (config.learning_rate, config.lr_scheduler_type, config.max_steps) == (1e-6, "constant", 125)
    assert config.gradient_checkpointing_kwargs == {"use_reentrant": False}
    assert (config.eval_strategy, config.save_strategy, config.save_steps) == ("no", "steps", 25)
    assert (config.report_to, config.bf16, config.remove_unused_columns) == ([], True, False)
    assert config.ddp_timeout == 1800 + 600 + 600  # silence, a sync, and some


@pytest.mark.parametrize("num_processes", [1, 2])
def test_grpo_config_accepts_evaluation(num_processes):
    from trl.trainer.grpo_config import GRPOConfig

    words = [*RL, "evaluation.steps=5", "evaluation.path=x", "evaluation.num_generations=3"]
    arguments = grpo_arguments(compose(words), cpu(num_processes))
    config = GRPOConfig(**arguments)
    assert (config.do_eval, config.eval_on_start, config.eval_steps) == (True, True, 5)
    assert config.per_device_eval_batch_size == config.num_generations_eval == 3


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["teacher_rl"], (600 + 3000) / 2),
        (["teacher_rl", "generation.sync_timeout=5000"], (5000 + 7400) / 2),
        (["teacher_rl", "trainer_args.ddp_timeout=720"], (600 + 720) / 2),
        (["teacher_sft"], 1800 / 2),  # nobody waits for a sync
    ],
)
def test_the_limit_of_deepspeeds_group_lies_between_that_of_a_sync_and_that_of_the_whole_group(words, limit):
    stage, *rest = words
    config = compose([f"run_cfg={stage}", *rest])
    assert group_limit(config) == limit
    whole = (grpo_arguments if "rl" in stage else sft_arguments)(config, cpu(2))["ddp_timeout"]
    assert group_limit(config) < whole
    if "rl" in stage:
        assert config.generation.sync_timeout < group_limit(config)


def test_sft_config_holds_the_released_recipe():
    from trl.trainer.sft_config import SFTConfig

    config = SFTConfig(**sft_arguments(compose(SFT), cpu(8)))
    assert config.gradient_accumulation_steps == 2  # 16 rows on 8 processes
    assert (config.learning_rate, config.lr_scheduler_type, config.warmup_steps) == (1e-5, "cosine", 0.05)
    assert (config.adam_beta2, config.weight_decay, config.num_train_epochs) == (0.95, 1e-4, 10)
    assert (config.max_length, config.packing, config.dataset_kwargs) == (
        None,
        False,
        {"skip_prepare_dataset": True},
    )


@pytest.mark.parametrize(
    ("words", "make", "fields"), [(SFT, sft_arguments, SFT_FIELDS), (RL, grpo_arguments, GRPO_FIELDS)]
)
@pytest.mark.parametrize("recipe", ["released", "modern"])
def test_names_are_trls_and_trainer_args_come_last(words, make, fields, recipe):
    config = compose(
        [*words, f"recipe={recipe}", "trainer_args.dataloader_num_workers=3", "trainer_args.ddp_timeout=9"]
    )
    arguments = make(config, RunContext(1, use_cpu=False, deepspeed=True))
    assert arguments.keys() <= fields.keys()
    assert (arguments["dataloader_num_workers"], arguments["ddp_timeout"]) == (3, 9)


def test_model_arguments():
    words = [*RL, "model.dtype=float32", "model.attn_implementation=auto", "model.revision=v2"]
    arguments = grpo_arguments(compose(words), cpu(1))
    assert arguments["model_init_kwargs"] == {
        "dtype": "float32",
        "attn_implementation": "sdpa",
        "revision": "v2",
    }


@pytest.mark.parametrize(("deepspeed", "weights"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_weights_only_where_the_optimizer_has_a_float32_copy(deepspeed, weights):
    arguments = grpo_arguments(compose(RL), cpu(2, deepspeed=deepspeed))
    assert (arguments["model_init_kwargs"]["dtype"], arguments["bf16"]) == (weights, True)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, rlt.trainers.arguments, rlt.trainers.recipe_diff\n"
        "sys.exit(bool({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=1000, check=False).returncode == 0


def test_rows_with_labels_train_only_on_them(tmp_path: Path):
    """TRL's collator takes `labels` as they are when the preparation is skipped."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    words = Tokenizer(
        models.WordLevel({**{f"t{i}": i for i in range(8)}, "<e>": 8, "<p>": 9}, unk_token="t0")
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>", pad_token="<p>")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=10, num_key_value_heads=1, **small))
    config = compose(
        [*SFT, f"output_dir={tmp_path}", "trainer.max_steps=1", "train_batch_size=2", "trainer.save_steps=0"]
    )
    arguments = sft_arguments(config, cpu(1)) | {"model_init_kwargs": None}
    rows = [{"id": "a", "input_ids": [1, 2, 3, 8], "labels": [-100, -100, 3, 8]}] * 2
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["labels"].tolist() == [[-100, -100, 3, 8]]
    trainer.train()
    assert trainer.state.global_step == 1


def test_recipe_diff_shows_what_a_recipe_pins():
    found = {name: (recipe, default) for name, recipe, default in differences(compose(RL))}
    assert found["beta"] == (0.04, 0.0)
    assert found["loss_type"] == ("grpo", "dapo")
    assert found["temperature"] == (0.7, 1.0)
    assert found["num_generations"] == (64, 8)
    assert found["max_completion_length"] == (16384, 512)
    assert found["ref_model_mixup_alpha"] == (0.9, 0.6)
    assert found["ref_model_sync_steps"] == (32, 512)
    assert found["vllm_importance_sampling_correction"] == (False, True)
    assert found["use_bias_correction_kl"] == (False, True)
    assert "top_p" not in found  # equal to the default
    modern = {name for name, _, _ in differences(compose([*RL, "recipe=modern"]))}
    assert "beta" not in modern
    assert "loss_type" not in modern


def test_recipe_diff_table():
    table = as_table([("beta", 0.04, 0.0)])
    assert table.splitlines()[2].split() == ["|", "beta", "|", "0.04", "|", "0.0", "|"]


def test_recipe_diff_names_the_prompts_that_differ():
    ours = "The teacher's system prompt is in our own words, not the released one."
    student = "The student's system prompt is in our own words, not the released one."
    yours = "The student's system prompt is yours, not the released one."
    assert prompt_lines(compose(SFT)) == [ours]
    assert prompt_lines(compose(RL)) == [ours]
    assert prompt_lines(compose([*RL, "reward_cfg=qwen2_5_7b_instruct"])) == [ours, student]
    assert prompt_lines(compose([*RL, "layout.student_prompt=Think first."])) == [ours, yours]
