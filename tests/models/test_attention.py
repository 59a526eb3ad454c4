"""Which attention a model is loaded with: what its class in transformers can do decides."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from rlt.errors import ModelError
from rlt.models.attention import Abilities, resolve_attention
from rlt.models.load import abilities_of, load_model

SIZE = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},
}
QWEN2 = Qwen2Config(**SIZE)
GEMMA2 = Gemma2Config(**SIZE, query_pre_attn_scalar=1, attn_logit_softcapping=2.0)
GPT_OSS = GptOssConfig(**SIZE, num_local_experts=2, num_experts_per_tok=1)
HUB = "kernels-community/flash-attn2"


@pytest.fixture
def flash_attn(monkeypatch):
    """The package flash-attn counts as installed."""
    monkeypatch.setattr("rlt.models.attention.not_provided", lambda _: None)


def auto(
    config: PreTrainedConfig, dtype: str = "bfloat16", gpu_problem: str | None = None
) -> tuple[str, str]:
    return resolve_attention("auto", dtype, abilities_of(config, gpu_problem))


def test_auto_without_flash_attn():
    assert auto(QWEN2) == ("sdpa", "auto: flash-attn is not installed")
    assert auto(GEMMA2)[0] == auto(GPT_OSS)[0] == "eager"


@pytest.mark.usefixtures("flash_attn")
def test_auto_with_flash_attn():
    assert auto(QWEN2) == ("flash_attention_2", "auto: flash-attn is installed")
    assert auto(GEMMA2)[0] == "flash_attention_2"  # which does the capping
    name, reason = auto(GPT_OSS)  # transformers would fetch a kernel of the Hub in its place
    assert name == "eager"
    assert "GptOssForCausalLM only works with kernels-community/vllm-flash-attn3" in reason
    assert auto(QWEN2, "float32") == ("sdpa", "auto: the dtype is float32")
    assert auto(QWEN2, gpu_problem="there is no GPU") == ("sdpa", "auto: there is no GPU")


@pytest.mark.parametrize(
    ("setting", "config", "reason"),
    [
        ("sdpa", GEMMA2, "SDPA would ignore the softcapping of Gemma2ForCausalLM"),
        ("sdpa", GPT_OSS, "GptOssForCausalLM does not support SDPA"),
        ("flash_attention_2", GPT_OSS, "GptOssForCausalLM only works with"),
        (HUB, GPT_OSS, "GptOssForCausalLM only works with"),
    ],
)
def test_a_setting_that_the_model_cannot_follow_is_one_sentence(setting, config, reason):
    with pytest.raises(ModelError, match=reason) as caught:
        resolve_attention(setting, "bfloat16", abilities_of(config))
    assert str(caught.value).endswith("take model.attn_implementation=auto")
    resolve_attention("auto", "bfloat16", abilities_of(config))  # the remedy


def test_kernels_need_a_gpu_that_can_run_them():
    for setting in ("flash_attention_2", HUB):
        with pytest.raises(ModelError, match="cannot be used: there is no GPU"):
            resolve_attention(setting, "bfloat16", Abilities(gpu_problem="there is no GPU"))


def test_capping_is_read_where_a_family_has_it():
    assert abilities_of(GEMMA2).softcapping
    assert not abilities_of(Gemma2Config(**SIZE, attn_logit_softcapping=None)).softcapping
    assert not abilities_of(Gemma3TextConfig(**SIZE)).softcapping


@pytest.mark.parametrize("config", [GEMMA2, GPT_OSS, LlamaConfig(**SIZE)], ids=lambda c: c.model_type)
def test_a_loaded_model_computes_what_eager_computes(config, tmp_path):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # scores that a cap of 2 changes
    made.save_pretrained(tmp_path)
    ids = torch.randint(0, 64, (1, 32))
    with torch.no_grad():
        found = load_model(str(tmp_path), dtype="float32")(input_ids=ids).logits.log_softmax(-1)
        how = {"experts_implementation": "eager"} if config is GPT_OSS else {}  # the other has no float64
        exact = AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.float64, attn_implementation="eager", **how
        )
        expected = exact(input_ids=ids).logits.log_softmax(-1)
    assert (found - expected).abs().max() < 1e-3
