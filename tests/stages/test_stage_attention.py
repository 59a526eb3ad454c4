"""What a stage says and refuses about the attention of its models, before any of them is loaded."""

import json
import logging

import pytest
from transformers import Gemma2Config, GptOssConfig, Qwen2Config

from rlt.config.compose import compose
from rlt.errors import ModelError
from rlt.stages.attention import check_attention, settle_attention
from rlt.stages.common import run_context, run_directory
from rlt.trainers.arguments import grpo_arguments

HUB = "kernels-community/flash-attn2"


@pytest.fixture
def configured(tmp_path):
    """Return what makes a configuration of teacher_rl whose models are configurations alone."""
    Gemma2Config().save_pretrained(tmp_path / "gemma")
    GptOssConfig().save_pretrained(tmp_path / "gpt-oss")
    Qwen2Config().save_pretrained(tmp_path / "qwen")

    def compose_with(model: str, student: str, *words: str):
        models = [f"model_name_or_path={tmp_path / model}", f"student_model={tmp_path / student}"]
        return compose(
            ["run_cfg=teacher_rl", *models, f"output_dir={tmp_path / 'run'}", "report_to=null", *words]
        )

    return compose_with


def test_what_auto_comes_to_is_logged_for_each_model(configured, caplog):
    with caplog.at_level(logging.INFO):
        settle_attention(configured("gemma", "qwen"))
    policy, student = (record.getMessage() for record in caplog.records)
    assert "gemma: eager (auto: " in policy
    assert "; SDPA would ignore the softcapping of Gemma2ForCausalLM)" in policy
    assert "qwen: sdpa (auto: flash-attn is not installed)" in student


def test_the_policy_gets_it(configured):
    config = configured("gpt-oss", "qwen")
    arguments = grpo_arguments(config, run_context(config))
    assert arguments["model_init_kwargs"]["attn_implementation"] == "eager"


@pytest.mark.parametrize(
    ("models", "value", "reason"),
    [
        (("gpt-oss", "qwen"), "sdpa", "GptOssForCausalLM does not support SDPA"),
        (("qwen", "gemma"), "sdpa", "SDPA would ignore the softcapping of Gemma2ForCausalLM"),
        (("gpt-oss", "qwen"), HUB, "GptOssForCausalLM only works with kernels-community/vllm-flash-attn3"),
        (("qwen", "qwen"), HUB, "there is no GPU"),
    ],
)
def test_a_run_ends_before_its_models_are_loaded(configured, tmp_path, models, value, reason):
    config = configured(*models, f"model.attn_implementation={value}")
    with pytest.raises(ModelError, match=reason), run_directory(config, {}):
        pytest.fail("the run has started")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert reason in record["error"]
    if reason != "there is no GPU":  # which another machine may have
        with pytest.raises(ModelError, match=reason):
            check_attention(config)


def test_a_dry_run_looks_at_models_and_not_at_devices(configured, caplog):
    with caplog.at_level(logging.INFO):
        check_attention(configured("qwen", "qwen", f"model.attn_implementation={HUB}"))
    assert caplog.messages[0].endswith(f"on GPUs: {HUB} (as set)")
