"""Tiny models of many families, written in bfloat16: each has a rotary table, or another buffer, of its own.

Run by test_zero_init.py under ZeRO-3: argv is the folder with a model of each family. Writes `sharded.pt`:
the buffers of each sharded model, before and after it has scored, and its log-probabilities; of families with
parameters in float32, what is said of them.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments

from rlt.models import zero_init
from rlt.models.frozen import load_frozen, scoring_accelerator
from rlt.models.load import load_model
from rlt.models.logprobs import Request
from rlt.models.tiny import shrink
from rlt.models.zero_init import buffers_left_alone, rounded_parameters, warn_of_rounded_parameters

POSITIONS = 96
REQUESTS = [Request([(7 * i + 3 * i * i) % 290 for i in range(POSITIONS)], list(range(1, POSITIONS)))]


def rope(kind: str, theta: float = 10000.0, **factors: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **factors}}


LLAMA3 = rope("llama3", 5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3["rope_parameters"]["original_max_position_embeddings"] = 64
LONGROPE = rope("longrope", short_factor=[1.0 + i / 9 for i in range(48)], long_factor=[2.0] * 48)
LONGROPE["rope_parameters"]["original_max_position_embeddings"] = 64
YARN = rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=64)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, llama3 scaling": ("llama", LLAMA3),
    "llama, linear scaling": ("llama", rope("linear", factor=4.0)),
    "llama, dynamic scaling": ("llama", rope("dynamic", factor=4.0) | {"max_position_embeddings": 64}),
    "qwen2, theta 1e6": ("qwen2", rope("default", 1e6)),
    "qwen2, yarn": ("qwen2", YARN),
    "qwen3, yarn": ("qwen3", YARN),
    "qwen3 mixture": ("qwen3_moe", {}),
    "qwen3.5": ("qwen3_5_text", {}),
    "qwen3-next": ("qwen3_next", {}),
    "gemma": ("gemma", {}),
    "gemma 2": ("gemma2", {}),
    "gemma 3, two tables": ("gemma3_text", {}),
    "phi-3, longrope": ("phi3", LONGROPE | {"max_position_embeddings": 256}),
    "gpt-oss, yarn": ("gpt_oss", {}),
    "olmo 2": ("olmo2", {}),
    "olmo 3": ("olmo3", {}),
    "mistral": ("mistral", {}),
    "mixtral": ("mixtral", {}),
    "smollm3": ("smollm3", {}),
    "granite": ("granite", {"logits_scaling": 4.0}),
    "cohere 2": ("cohere2", {}),
    "glm-4, half rotary": ("glm4", {}),
    "nemotron": ("nemotron", {"num_key_value_heads": 1, "head_dim": 32}),
    "stablelm, quarter rotary": ("stablelm", {}),
    "deepseek v3, persistent bias": (
        "deepseek_v3",
        {
            "first_k_dense_replace": 0,
            "n_routed_experts": 8,
            "n_group": 1,
            "topk_group": 1,
            "qk_rope_head_dim": 32,
        },
    ),
    "lfm2 mixture, persistent bias": (
        "lfm2_moe",
        {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2, "num_dense_layers": 0},
    ),
    "minimax, persistent decays": ("minimax", {}),
}

KEPT_IN_FLOAT32: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo hybrid, float32 decays": ("olmo_hybrid", {}),
    "ernie mixture, float32 gates": ("ernie4_5_moe", {}),
    "deepseek v4, float32 sinks": ("deepseek_v4", {}),
}
"""Families with parameters that a plain load keeps in float32."""


def write_family(name: str, folder: Path) -> None:
    """Write a random model; what a checkpoint holds of its buffers has digits that bfloat16 does not."""
    kind, changes = (FAMILIES | KEPT_IN_FLOAT32)[name]
    config = shrink(AutoConfig.for_model(kind, **changes))
    config.vocab_size = 300
    config.initializer_range = 0.1
    config.pad_token_id = config.bos_token_id = config.eos_token_id = 1
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    kept = model.state_dict()
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):  # made as zeros, which hide how they are added
            torch.nn.init.normal_(parameter, std=0.5)
    for key, buffer in model.named_buffers():
        if key in kept and buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape) / 8 + buffer)
    model.save_pretrained(folder)


def folder_of(name: str, root: Path) -> Path:
    return root / str(list(FAMILIES | KEPT_IN_FLOAT32).index(name))


def main(root: Path) -> None:
    # As in a stage: the arguments switch ZeRO-3 on for transformers.
    _arguments = TrainingArguments(str(root), report_to=[], use_cpu=True, bf16=True)
    accelerator = scoring_accelerator()
    found: dict[str, Any] = {}
    for name in FAMILIES:
        folder = folder_of(name, root)
        bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        student = load_frozen(
            str(folder),
            placement="zero3",
            dtype="bfloat16",
            attn_implementation="eager",
            accelerator=accelerator,
        )
        with student.in_place() as engine:
            buffers = {key: buffer.clone() for key, buffer in engine.module.named_buffers()}
            rounded = rounded_parameters(engine.module)
        [logprobs] = student.logprobs(REQUESTS, temperature=1.0, tokens_per_batch=POSITIONS)
        with student.in_place() as engine:
            after = dict(engine.module.named_buffers())
        without = dict(bare.named_buffers())
        found[name] = {"without": without, "buffers": buffers, "after": after, "logprobs": logprobs}
        found[name]["rounded"] = rounded
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    zero_init.logger.addHandler(listener)
    for name in KEPT_IN_FLOAT32:
        with buffers_left_alone():
            model = load_model(str(folder_of(name, root)), dtype="bfloat16", attn_implementation="eager")
        warn_of_rounded_parameters(model, "a start with ddp")
        dtypes = {parameter.dtype for parameter in model.parameters()}
        found[name] = {"rounded": rounded_parameters(model), "dtypes": dtypes, "said": said[-1]}
    torch.save(found, root / "sharded.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
