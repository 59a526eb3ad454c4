"""How large a model is, from its config.json alone: parameters, keys and values, operations. No torch.

Knows decoder-only models with gated MLPs of the Llama, Mistral, Qwen2 and Qwen3 families, whose parameters
follow from a few fields. Of anything else it says that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NoForecast(Exception):
    """Something that memory and time depend on is not known; the message is the reason, in one sentence."""


@dataclass(frozen=True)
class ModelSize:
    """The dimensions that memory and time follow from.

    Example, Qwen2.5-7B: `ModelSize(hidden=3584, intermediate=18944, layers=28, heads=28, kv_heads=4,
    head_dim=128, vocabulary=152064, tied=False, qkv_bias=True)`.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """The LM head is the embedding."""
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @property
    def query(self) -> int:
        """Width of a layer's queries, and of what its attention returns."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of a layer's keys, and of its values."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear maps of a layer: (inputs, outputs) by name."""
        return {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key),
            "v_proj": (self.hidden, self.key),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the LM head: the largest module's."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, a tied LM head counted once."""
        layer = sum(inputs * outputs for inputs, outputs in self.linears.values())
        layer += 2 * self.hidden  # norms
        layer += self.qkv_bias * (self.query + 2 * self.key) + self.o_bias * self.hidden
        layer += self.mlp_bias * (2 * self.intermediate + self.hidden) + self.qk_norm * 2 * self.head_dim
        return self.layers * layer + self.hidden + self.embedding * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, modules: Sequence[str]) -> int:
        """Return the parameters of adapters on the named linear maps of each layer.

        On all of them for `all-linear`, and for names of which none is known here.
        """
        chosen = set(modules) & self.linears.keys() or self.linears.keys()
        return self.layers * rank * sum(sum(self.linears[name]) for name in chosen)

    def kv_bytes(self, bytes_per_number: int) -> int:
        """Return the bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.key * bytes_per_number

    def forward_flops(self, tokens: float, context: float) -> float:
        """Return the operations of a forward pass over `tokens`, each of which attends to `context` others.

        Two for each weight that multiplies (the embedding is looked up), and two products with keys and
        values; in a sequence read as a whole the mean context is half its length.
        """
        weights = self.parameters - (0 if self.tied else self.embedding)
        return tokens * (2 * weights + 4 * self.layers * self.query * context)


_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_QWEN_7B = ModelSize(3584, 18944, 28, 28, 4, 128, 152064, tied=False, qkv_bias=True)
_QWEN_32B = ModelSize(5120, 27648, 64, 40, 8, 128, 152064, tied=False, qkv_bias=True)
PUBLISHED = {
    "Qwen/Qwen2.5-3B-Instruct": ModelSize(2048, 11008, 36, 16, 2, 128, 151936, tied=True, qkv_bias=True),
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_7B,
    "Qwen/Qwen2.5-32B-Instruct": _QWEN_32B,
    "bespokelabs/Bespoke-Stratos-7B": _QWEN_7B,
    "bespokelabs/Bespoke-Stratos-32B": _QWEN_32B,
    "SakanaAI/RLT-7B": _QWEN_7B,
    "SakanaAI/RLT-32B": _QWEN_32B,
}
"""Models of the recipes that may not be on this machine: from the config.json of Qwen2.5 on the Hub; those of
bespokelabs and SakanaAI are fine-tuned from Qwen2.5-7B/32B-Instruct and keep their shape."""


def read_size(model: str) -> ModelSize:
    """Return the size of a model in a folder, in the Hub's cache, or in the table; raises NoForecast."""
    path = Path(model) / "config.json"
    if not path.is_file() and model in PUBLISHED:
        return PUBLISHED[model]
    if not path.is_file():
        path = _cached_config(model)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoForecast(f"{path} cannot be read ({error})") from None
    return size_of(values, model)


def size_of(values: Any, model: str) -> ModelSize:
    """Return the size that the fields of a config.json describe; raises NoForecast."""
    if not isinstance(values, dict):
        raise NoForecast(f"config.json of {model} holds no JSON object")
    family = values.get("model_type")
    if family not in _FAMILIES:
        raise NoForecast(f"{model} is of the type {family}, and only {', '.join(_FAMILIES)} are known")
    if values.get("quantization_config"):
        raise NoForecast(f"{model} is quantised")
    heads = _count(values, "num_attention_heads", model)
    hidden = _count(values, "hidden_size", model)
    has_bias = bool(values.get("attention_bias", False))
    return ModelSize(
        hidden=hidden,
        intermediate=_count(values, "intermediate_size", model),
        layers=_count(values, "num_hidden_layers", model),
        heads=heads,
        kv_heads=_count(values, "num_key_value_heads", model, heads),
        head_dim=_count(values, "head_dim", model, 128 if family == "qwen3" else hidden // heads),
        vocabulary=_count(values, "vocab_size", model),
        tied=bool(values.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2" or has_bias,
        o_bias=family in ("llama", "qwen3") and has_bias,
        mlp_bias=family == "llama" and bool(values.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
    )


def _count(values: dict[str, Any], field: str, model: str, default: int | None = None) -> int:
    found = values.get(field)
    value = default if found is None else found
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise NoForecast(f"{field} in the config.json of {model} is no positive number ({found})")
    return value


def _cached_config(model: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise NoForecast(f"{model} is not on this machine, and its size is not in rlt/launch/model_size.py")
    return Path(found)
