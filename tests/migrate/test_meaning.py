"""What a key of the original release comes to; right sides are worked out by hand from its code."""

import math

import pytest

from rlt.config.original.translate import meaning_of
from rlt.config.renames import GONE, RENAMED

RL, SFT = "teacher_rl", "teacher_sft"
STRATOS = "bespokelabs/Bespoke-Stratos-17k"


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("bf16", {"bf16": False}, {"model.dtype": "float32"}),
        ("max_steps", {"max_steps": 7}, {"trainer.max_steps": 7}),
        ("not_matched_penalty", {"not_matched_penalty": -2.5}, {"reward.missing_tag_penalty": 2.5}),
        ("use_schulman_kl_estimation", {"use_schulman_kl_estimation": True}, {"reward.kl_estimator": "k3"}),
        (
            "use_schulman_kl_estimation",
            {"use_schulman_kl_estimation": True, "include_teacher_think_entropy": False},
            {"reward.kl_estimator": "student_nll"},
        ),
        ("top_k", {"top_k": -1}, {"generation.top_k": 0}),
        ("top_k", {"top_k": 20}, {"generation.top_k": 20}),
        ("min_p", {"min_p": None}, {"generation.min_p": 0.0}),
        ("reduction_kl_fn", {"reduction_kl_fn": "Mean"}, {"reward.kl_reductions": ["mean"]}),
        ("reduction_kl_fn", {"reduction_kl_fn": [["sum"], "max"]}, {"reward.kl_reductions": ["sum", "max"]}),
        ("answer_log_prob_coeff", {"answer_log_prob_coeff": 1.0}, {"answer_log_prob_coeff": [1.0]}),
        ("normalize_kl_fn", {"normalize_kl_fn": "exp_norm"}, {"reward.kl_transform": "one_minus_exp"}),
        ("sync_ref_model", {"sync_ref_model": False}, {"trainer.ref_sync_steps": 0}),
        ("ref_model_sync_steps", {"sync_ref_model": False, "ref_model_sync_steps": 32}, {}),
        ("warmup_ratio", {"warmup_ratio": 0.1, "lr_scheduler_type": "constant"}, {}),
        ("warmup_ratio", {"warmup_ratio": 0.1, "lr_scheduler_type": "cosine"}, {"trainer.warmup_steps": 0.1}),
        ("save_strategy", {"save_strategy": "no"}, {"trainer.save_steps": 0}),
        # 16,710 rows in steps of 16 are 1,044.4 steps
        (
            "save_strategy",
            {"save_strategy": "epoch", "train_batch_size": 16, "dataset_id_or_path": STRATOS},
            {"trainer.save_steps": 1045},
        ),
        ("save_steps", {"save_strategy": "epoch", "save_steps": 1}, {}),
        ("use_vllm", {"use_vllm": False, "use_vllm_server": False}, {"generation.backend": "transformers"}),
        ("use_vllm", {"use_vllm": False, "use_vllm_server": True}, {"generation.backend": "vllm"}),
        ("offload_untrained_models", {"offload_untrained_models": True}, {"reward.placement": "cpu_offload"}),
        ("shuffle_generation_inputs", {"shuffle_generation_inputs": False}, {}),
        (
            "unbias_student_log_probs_temp",
            {"unbias_student_log_probs_temp": None},
            {"reward.student_temperature": 1.0},
        ),
        (
            "student_model",
            {"student_model": None, "model_name_or_path": "m", "beta": 0},
            {"student_model": "m"},
        ),
        ("student_model", {"student_model": None, "beta": 0.04}, {"student_model": "reference"}),
        (
            "offload_untrained_models",
            {"offload_untrained_models": True, "student_model": None, "beta": 0.04},
            {"reward.placement": "replicated"},
        ),
        ("report_to", {"report_to": ["wandb"]}, {"report_to": "wandb"}),
        (
            "dataset_local_directory",
            {"dataset_local_directory": "d", "dataset_id_or_path": "n"},
            {"dataset_id_or_path": "d"},
        ),
        ("clip_log_prob", {"clip_log_prob": None}, {"reward.answer_clip": []}),
        ("clip_log_prob", {"clip_log_prob": 100000}, {"reward.answer_clip": []}),
        ("clip_log_prob", {"clip_log_prob": 5}, {"reward.answer_clip": [-5.0, 0.0]}),
        ("clip_kl", {"clip_kl": 5}, {"reward.kl_clip": [-1e5, 5.0]}),
        ("clip_kl", {"clip_kl": 2, "normalize_kl_fn": "exp_norm"}, {"reward.kl_clip": []}),  # below 1 anyway
    ],
)  # fmt: skip
def test_meaning(key, values, expected):
    assert meaning_of(key, values, stage=RL).settings == expected


@pytest.mark.parametrize("x", [-9.0, -2.0, -0.5, 0.0, 0.7, 3.0, 12.0])
@pytest.mark.parametrize(
    ("transform", "there"), [(None, lambda x: x), ("exp", math.exp), ("exp_norm", lambda x: 1 - math.exp(-x))]
)
@pytest.mark.parametrize("limit", [0.3, 2.0, 50.0])
def test_a_clip_after_the_transform_is_one_before_it(x, transform, there, limit):
    """The original clips f(x), from below for log-probabilities and from above for divergences; we clip x."""
    values = {
        "clip_log_prob": limit,
        "normalize_log_prob_fn": transform,
        "clip_kl": limit,
        "normalize_kl_fn": transform,
    }
    ours = meaning_of("clip_kl", values, stage=RL).settings["reward.kl_clip"]
    low, high = ours or (-math.inf, math.inf)
    assert there(min(max(x, low), high)) == pytest.approx(min(there(x), limit))
    if x <= 0:  # a log-probability
        ours = meaning_of("clip_log_prob", values, stage=RL).settings["reward.answer_clip"]
        low, high = ours or (-math.inf, math.inf)
        assert there(min(max(x, low), high)) == pytest.approx(max(there(x), -limit))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("packing", True),
        ("unbias_teacher_log_probs", False),
        ("not_matched_penalty", 0.5),
        ("normalize_kl_fn", "log"),
        ("system_prompt_style", "mine"),
        ("tokenizer_name_or_path", "another"),
        ("no_such_key", 1),
    ],
)
def test_a_value_that_cannot_be_had_is_said_to_differ(key, value):
    assert meaning_of(key, {key: value, "model_name_or_path": "m"}, stage=SFT).differs


@pytest.mark.parametrize("value", ["x", -1, [], ["a", [None]], {"a": 1}, None, True, 0.5])
def test_any_value_of_any_key_has_a_meaning(value):
    for key in {*RENAMED, *GONE}:
        for other in ({}, {"save_strategy": value, "train_batch_size": value, "dataset_id_or_path": STRATOS}):
            meaning = meaning_of(key, {**other, "normalize_kl_fn": value, key: value}, stage=RL)
            assert meaning.settings or meaning.note
