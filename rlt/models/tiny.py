"""A tiny random model of the family of a given one, with its own tokenizer: to rehearse with.

Of the given model only configuration and tokenizer are read. What its family has besides sizes stays: the
vocabulary, tied embeddings, norms of queries and keys, kinds of layers, rope, the context, the dtype.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.hub import cached_file

from rlt.config.files import LAYOUT_FILE
from rlt.errors import ModelError, first_line
from rlt.models.load import load_config, load_tokenizer

HEADS = 2
HEAD_DIM = 32
"""The smallest that vLLM serves on a CPU."""
_LAYERS = 2
_EXPERTS = 4
_MOST_PARAMETERS = 5_000_000
"""Besides the vocabulary's. What is left of a family whose sizes have other names is far above."""
_VOCABULARY = 512
"""Of a model that is only looked at."""
_LOOKED_AT = 8
"""Tokens that a model has to be able to read."""
_EXTRA_FILES = ("generation_config.json", LAYOUT_FILE)


@dataclass(frozen=True)
class Shrunk:
    """What has become of a model."""

    family: str
    layers: tuple[int, int]
    """Of the tiny model, and of the given one."""
    hidden: tuple[int, int]
    context: int | None
    """max_position_embeddings, which stays."""

    def __str__(self) -> str:
        """Return it in a few words."""
        layers, hidden = self.layers, self.hidden
        return (
            f"{self.family} with {layers[0]} of {layers[1]} layers and {hidden[0]} of {hidden[1]} dimensions"
        )


def write_tiny(
    name: str,
    folder: Path,
    *,
    seed: int,
    revision: str | None = None,
    trust: bool = False,
    heads: int = HEADS,
) -> Shrunk:
    """Write the tiny model of a folder's or a Hub name's family to `folder`, made if need be.

    `heads` are its attention heads, for servers that share them out. Raises ModelError for a model that
    cannot be read, or of whose family no tiny one can be made.
    """
    tokenizer = load_tokenizer(name, revision=revision, trust=trust)
    given = load_config(name, revision=revision, trust=trust)
    try:
        config = shrink(given, heads)
    except Exception as error:  # whatever a family's configuration says of sizes that it does not expect
        raise _not_made(given, name, first_line(error)) from error
    model = _build(config, name, seed, trust)
    _require_forward(model, name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in _EXTRA_FILES:
        found = cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            shutil.copyfile(found, folder / file)
    new, old = config.get_text_config(), given.get_text_config()
    return Shrunk(
        family=config.model_type,
        layers=(new.num_hidden_layers, old.num_hidden_layers),
        hidden=(new.hidden_size, old.hidden_size),
        context=getattr(new, "max_position_embeddings", None),
    )


def tiny_like(given: Any, name: str, *, trust: bool = False) -> PreTrainedModel:
    """Return a tiny random model in float32 of a configuration, to look at what its family does.

    Its vocabulary is cut too, which most of its time would go to. `name` is the given model's. Raises
    ModelError where none can be made.
    """
    try:
        config = shrink(given)
        for section in (config, config.get_text_config()):
            _cut_vocabulary(section)
    except Exception as error:  # whatever a family's configuration says of sizes that it does not expect
        raise _not_made(given, name, first_line(error)) from error
    return _build(config, name, seed=0, trust=trust).float().eval()


def shrink(config: Any, heads: int = HEADS) -> Any:
    """Return a copy of a model's configuration with tiny sizes.

    There are two layers, or as many as there are kinds of them; groups of queries stay groups, and layers
    that are larger than others stay larger.
    """
    config = deepcopy(config)
    text = config.get_text_config()
    chosen = _chosen_layers(text.num_hidden_layers, getattr(text, "layer_types", None))
    for key, value in list(vars(text).items()):  # one entry for each layer
        if isinstance(value, list) and len(value) == text.num_hidden_layers:
            setattr(text, key, [value[i] for i in chosen])
    own = _take_apart(text)
    old = {key: getattr(text, key) for key in {key for layer in own for key in layer}}
    _set_sizes(text, heads, len(chosen))
    if any(own):  # in a copy without entries of its own, each key has one value again
        text.per_layer_config = {
            new: {key: _in_proportion(value, old[key], getattr(text, key)) for key, value in own[i].items()}
            for new, i in enumerate(chosen)
        }
    if getattr(text, "max_window_layers", None) is not None:
        text.max_window_layers = min(text.max_window_layers, len(chosen))
    if getattr(text, "mlp_only_layers", None):
        text.mlp_only_layers = [new for new, old in enumerate(chosen) if old in text.mlp_only_layers]
    _cut_rope(getattr(text, "rope_parameters", None))
    for key in config.sub_configs:
        section = getattr(config, key, None)
        if section is not None and section is not text:
            _shrink_tower(section, text.hidden_size)
    return config


def _set_sizes(text: Any, heads: int, layers: int) -> None:
    """Give a text model tiny sizes, as far as its configuration has them."""
    old_heads = getattr(text, "num_attention_heads", None)
    has_groups = getattr(text, "num_key_value_heads", None) not in (None, old_heads)
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": heads * HEAD_DIM,
        "num_attention_heads": heads,
        "head_dim": HEAD_DIM,
        "num_key_value_heads": max(heads // 2, 1) if has_groups else heads,
        "intermediate_size": 2 * heads * HEAD_DIM,
        "moe_intermediate_size": heads * HEAD_DIM,
        "shared_expert_intermediate_size": heads * HEAD_DIM,
        "num_experts": _EXPERTS,
        "num_local_experts": _EXPERTS,
        "n_routed_experts": _EXPERTS,
        "num_experts_per_tok": 2,
        "q_lora_rank": heads * HEAD_DIM,
        "kv_lora_rank": heads * HEAD_DIM,
        "qk_nope_head_dim": HEAD_DIM,
        "qk_rope_head_dim": HEAD_DIM,
        "v_head_dim": HEAD_DIM,
    }
    for key, size in sizes.items():
        if getattr(text, key, None) is not None:
            with suppress(AttributeError):  # calculated from others
                setattr(text, key, size)
    at_most = {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "num_dense_layers": 1}
    at_most |= {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": HEAD_DIM}
    for key, most in at_most.items():
        if isinstance(value := getattr(text, key, None), int):
            setattr(text, key, min(value, most))


def _take_apart(text: Any) -> list[dict[str, Any]]:
    """Return each layer's own values where they differ (transformers' heterogeneous configurations).

    They are taken out of the configuration: there, a key that layers have values of their own for cannot be
    read or set.
    """
    if not text.is_heterogeneous:
        return []
    layers, keys = list(text.per_layer_config), text.per_layer_attributes
    text.per_layer_config = None
    return [{key: getattr(layer, key) for key in keys} for layer in layers]


def _in_proportion(value: Any, old: Any, new: Any) -> Any:
    """Return a layer's own size, as much larger than the tiny one as it was."""
    is_size = isinstance(value, int) and isinstance(old, int) and not isinstance(value, bool)
    return max(1, new * value // old) if is_size and old else value


def _shrink_tower(section: Any, hidden: int) -> None:
    """Give the part for images or sounds tiny sizes, as far as its configuration has them."""
    sizes = {
        **dict.fromkeys(("num_hidden_layers", "depth"), 1),
        **dict.fromkeys(("num_attention_heads", "num_heads"), HEADS),
        **dict.fromkeys(("hidden_size", "embed_dim", "intermediate_size"), HEADS * HEAD_DIM),
        **dict.fromkeys(("num_key_value_heads",), HEADS),
        "head_dim": HEAD_DIM,
        "out_hidden_size": hidden,
    }
    for key, size in sizes.items():
        if getattr(section, key, None) is not None:
            with suppress(AttributeError):
                setattr(section, key, size)


def _chosen_layers(count: int, kinds: list[str] | None) -> list[int]:
    """Return which layers are kept: the first of each kind, then the first ones, in their order."""
    first = {kind: index for index, kind in reversed(list(enumerate(kinds or [])))}
    order = [*sorted(first.values()), *(i for i in range(count) if i not in first.values())]
    return sorted(order[: max(min(_LAYERS, count), len(first))])


def _cut_rope(parameters: Any) -> None:
    """Leave as many factors of each rope as the small heads have frequencies."""
    if not isinstance(parameters, dict):
        return
    rotated = int(HEAD_DIM * parameters.get("partial_rotary_factor", 1.0)) // 2
    for key, value in parameters.items():
        if isinstance(value, list) and key.endswith("_factor"):
            parameters[key] = value[:rotated]
        _cut_rope(value)


def _cut_vocabulary(section: Any) -> None:
    """Cut the sizes of vocabularies in a configuration, and the ids of its special tokens to fit."""
    for key, value in list(vars(section).items()):
        if key.startswith("vocab_size") and isinstance(value, int):
            setattr(section, key, min(value, _VOCABULARY))
        elif key.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= _VOCABULARY:
            setattr(section, key, value % 3)
        elif key.endswith("token_id") and isinstance(value, list):
            setattr(section, key, [i % 3 if i >= _VOCABULARY else i for i in value])


def _build(config: Any, name: str, seed: int, trust: bool) -> PreTrainedModel:
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{name!r} is quantised, and no tiny model is made of such a one: take the plain model"
        )
    try:
        with torch.device("meta"):
            plan = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
        size = sum(p.numel() for p in plan.parameters())
        embedded = [plan.get_input_embeddings(), plan.get_output_embeddings()]
        size -= sum(p.numel() for module in embedded if module is not None for p in module.parameters())
        if size > _MOST_PARAMETERS:
            raise ModelError(
                f"no tiny model of the family {config.model_type} can be made of {name!r}: {size / 1e6:,.0f} "
                "million parameters would be left"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust, dtype=torch.float32)
    except ModelError:
        raise
    except Exception as error:  # whatever a family's own code says of sizes that it does not expect
        raise _not_made(config, name, first_line(error)) from error
    return model.to(config.dtype or torch.float32)


@torch.no_grad()
def _require_forward(model: PreTrainedModel, name: str) -> None:
    """Raise ModelError for a model that cannot read a few tokens: its sizes do not go together."""
    try:
        model.eval()(input_ids=torch.arange(_LOOKED_AT).unsqueeze(0))
    except Exception as error:  # a family's own code, with sizes that it was not written for
        raise _not_made(model.config, name, first_line(error)) from error


def _not_made(config: Any, name: str, why: str) -> ModelError:
    return ModelError(f"no tiny model of the family {config.model_type} can be made of {name!r} ({why})")
