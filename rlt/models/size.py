"""How large a model is, from the fields of its config.json alone: parameters, keys and values, operations.

Knows decoder-only models with gated MLPs of the Llama, Mistral, Qwen2 and Qwen3 families, whose parameters
follow from a few fields. Of anything else it says that it does not know. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


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
