"""How large a model is: parameters, keys and values, operations.

`counting.py` counts all of it on the model itself, without weights, for any family. That takes torch and
seconds, so for decoder-only models with gated MLPs of the Llama, Mistral, Qwen2 and Qwen3 families it is
calculated here from a few fields of config.json; a test holds these numbers to the counted ones. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PLAIN = ("llama", "mistral", "qwen2", "qwen3")


class NoForecast(Exception):
    """Something that memory and time depend on is not known; the message is the reason, in one sentence."""


@dataclass(frozen=True)
class Cache:
    """What layers of one kind keep of a sequence, in numbers for each layer."""

    layers: int
    per_token: int
    """Keys and values of a token."""
    window: int | None = None
    """Tokens of the sequence that are kept at most; None for all."""
    fixed: int = 0
    """States that do not grow with the sequence: of linear attention, convolutions, Mamba."""

    def tokens(self, length: float) -> float:
        """Return the tokens of a sequence that are kept."""
        return length if self.window is None else min(length, self.window)


@dataclass(frozen=True)
class ModelSize:
    """What memory and time follow from."""

    parameters: int
    """A tied LM head counted once."""
    active: int
    """Weights that are multiplied for a token: of a mixture those of its experts, embeddings not."""
    largest: int
    """Parameters of the largest module, which ZeRO-3 gathers as a whole."""
    hidden: int
    layers: int
    vocabulary: int
    heads: int
    kv_heads: int
    """The fewest of any layer: more GPUs than that hold copies."""
    head_dim: int
    intermediate: int
    """Width of a gated MLP, that of all experts of a token; all that is in a layer where it was counted."""
    attention: int
    """Operations of a token for each other one that it attends to, in all layers."""
    query: int = 0
    """Width of a layer's queries, and of what its attention returns; in `intermediate` where counted."""
    key: int = 0
    """Width of a layer's keys, and of its values; in `intermediate` where counted."""
    caches: tuple[Cache, ...] = ()
    linears: Mapping[str, int] = field(default_factory=dict)
    """Inputs and outputs of the linear maps besides the LM head, by name, summed over the model."""

    @property
    def embedding(self) -> int:
        """Parameters of the LM head."""
        return self.vocabulary * self.hidden

    @property
    def is_mixture(self) -> bool:
        """Whether a token passes by many of the parameters: a mixture, or one with parts for images."""
        return self.active < 0.9 * (self.parameters - self.embedding)

    def weights_read(self, sequences: float) -> float:
        """Return the parameters that a step of generation reads; sequences may go to other experts."""
        return min(self.parameters, self.active * max(1.0, sequences))

    def lora_parameters(self, rank: int, modules: Sequence[str]) -> int:
        """Return the parameters of adapters on the named linear maps.

        On all of them for `all-linear`, and for names of which none is known here.
        """
        chosen = set(modules) & self.linears.keys() or self.linears.keys()
        return rank * sum(self.linears[name] for name in chosen)

    def kv_bytes(self, bytes_per_number: int, length: float) -> float:
        """Return the bytes of what all layers keep of a sequence."""
        numbers = sum(c.layers * (c.per_token * c.tokens(length) + c.fixed) for c in self.caches)
        return numbers * bytes_per_number

    def forward_flops(self, tokens: float, context: float) -> float:
        """Return the operations of a forward pass over `tokens`, each of which attends to `context` others.

        Two for each weight that multiplies, and the products with keys and values, in windows with no more
        than these; in a sequence read as a whole the mean context is half its length.
        """
        attending = [cache for cache in self.caches if cache.per_token]
        layers = sum(cache.layers for cache in attending)
        seen = sum(c.layers * c.tokens(context) for c in attending) / layers if layers else context
        return tokens * (2 * self.active + self.attention * seen)


@dataclass(frozen=True)
class Decoder:
    """The dimensions of a decoder with gated MLPs.

    Example: `Decoder(hidden=3584, intermediate=18944, layers=28, heads=28, kv_heads=4, head_dim=128,
    vocabulary=152064, tied=False, qkv_bias=True)` is Qwen2.5-7B.
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
    def size(self) -> ModelSize:
        """The size that follows."""
        hidden, intermediate, layers = self.hidden, self.intermediate, self.layers
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        linears = {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, intermediate),
            "up_proj": (hidden, intermediate),
            "down_proj": (intermediate, hidden),
        }
        weights = layers * sum(inputs * outputs for inputs, outputs in linears.values())
        vectors = 2 * hidden  # norms
        vectors += self.qkv_bias * (query + 2 * key) + self.o_bias * hidden
        vectors += self.mlp_bias * (2 * intermediate + hidden) + self.qk_norm * 2 * self.head_dim
        embedding = self.vocabulary * hidden
        return ModelSize(
            parameters=weights + layers * vectors + hidden + embedding * (1 if self.tied else 2),
            active=weights + embedding,
            largest=max(embedding, hidden * intermediate),
            hidden=hidden,
            layers=layers,
            vocabulary=self.vocabulary,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            intermediate=intermediate,
            attention=4 * layers * query,
            query=query,
            key=key,
            caches=(Cache(layers, 2 * key),),
            linears={name: layers * sum(widths) for name, widths in linears.items()},
        )


def is_plain(values: Any, model: str) -> bool:
    """Whether `size_of` knows what the fields of a config.json describe; NoForecast where nothing does."""
    if not isinstance(values, dict):
        raise NoForecast(f"config.json of {model} holds no JSON object")
    if values.get("quantization_config"):
        raise NoForecast(f"{model} is quantised")
    family = values.get("model_type")
    windows = values.get("sliding_window", family == "mistral") and values.get("use_sliding_window", True)
    kinds = set(values.get("layer_types") or ()) - {"full_attention"}
    return family in _PLAIN and not windows and not kinds


def size_of(values: Any, model: str) -> ModelSize:
    """Return the size that the fields of a plain model's config.json describe; raises NoForecast."""
    if not is_plain(values, model):
        raise NoForecast(f"{model} is of the type {values.get('model_type')}, which has to be counted")
    family = values["model_type"]
    heads = _count(values, "num_attention_heads", model)
    hidden = _count(values, "hidden_size", model)
    has_bias = bool(values.get("attention_bias", False))
    decoder = Decoder(
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
    return decoder.size


def _count(values: dict[str, Any], field: str, model: str, default: int | None = None) -> int:
    found = values.get(field)
    value = default if found is None else found
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise NoForecast(f"{field} in the config.json of {model} is no positive number ({found})")
    return value
