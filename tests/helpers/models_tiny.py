"""Small random Qwen2 models, and log-probabilities computed without rlt."""

from __future__ import annotations

from copy import deepcopy

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


def tiny_model(seed: int = 0, vocab: int = 517, **overrides) -> Qwen2ForCausalLM:
    """Return a random float32 model whose log-probabilities vary by several nats."""
    torch.manual_seed(seed)
    size = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    return Qwen2ForCausalLM(Qwen2Config(**{**size, **overrides})).eval().requires_grad_(False)


def expected_logprobs(model, ids, positions, temperature: float) -> torch.Tensor:
    """Return log p(ids[p] | ids[:p]) in float64: one whole sequence, all logits, a plain log-softmax."""
    exact = deepcopy(model).double()
    logits_TV = exact(torch.tensor([list(ids)])).logits[0] / temperature
    logprobs_TV = logits_TV - logits_TV.exp().sum(1, keepdim=True).log()
    return torch.stack([logprobs_TV[p - 1, ids[p]] for p in positions])
