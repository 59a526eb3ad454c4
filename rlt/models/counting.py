"""The size of a model of any family, counted on the model itself without weights.

The model is made on torch's meta device, where tensors have shapes and no numbers, and reads a few tokens
there: its own code says how many operations that takes and what it keeps of a sequence. `python -m
rlt.models.counting FOLDER [--trust]` prints the size of the model of FOLDER/config.json as JSON, or the
reason why it cannot be counted, so that the launcher itself loads no torch.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlt.errors import first_line
from rlt.models.load import load_config
from rlt.models.size import Cache, ModelSize, NoForecast

_LENGTHS = (64, 128)
"""Tokens of the passes whose operations are counted: whole chunks of linear attention."""
_EXPANDED_ON_SERVERS = ("minicpm3",)
"""Families whose compressed keys and values vLLM has no kernels for, so its servers hold them expanded."""


def count_size(config: Any, name: str, *, trust: bool = False) -> ModelSize:
    """Return the size of the model that training makes of a configuration; raises NoForecast."""
    model = _made(config, trust)
    text = model.config.get_text_config()
    try:
        passes = [_passed(model, length) for length in _LENGTHS]
    except Exception:
        if text is model.config:
            raise
        # Where images are put among the tokens, tensors without numbers do not do: the text model alone.
        reader = _made(text, trust)
        passes = [_passed(reader, length) for length in _LENGTHS]
    (short, long), cache = [operations for operations, _ in passes], passes[-1][1]
    # operations = tokens x (2 x active + attention x tokens): every token attends to all tokens there
    attention = max(0.0, (long / _LENGTHS[1] - short / _LENGTHS[0]) / (_LENGTHS[1] - _LENGTHS[0]))
    active = round((short / _LENGTHS[0] - attention * _LENGTHS[0]) / 2)
    caches = tuple(_caches(cache, text))
    if not caches:
        raise NoForecast(f"{name} does not say what it keeps of a sequence ({text.model_type})")
    head = model.get_output_embeddings()
    embedding = text.vocab_size * text.hidden_size
    heads = _most(text, "num_attention_heads")
    # A gated MLP has three matrices of hidden x intermediate: everything in a layer is taken as such a one.
    inner = max(0, active - embedding) // (3 * text.num_hidden_layers * text.hidden_size)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        active=active,
        largest=max(sum(p.numel() for p in m.parameters(recurse=False)) for m in model.modules()),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        heads=heads,
        kv_heads=_fewest_heads(cache),
        head_dim=_most(text, "head_dim") or text.hidden_size // max(heads, 1),
        intermediate=inner,
        attention=round(attention),
        caches=caches,
        linears=_linears(model, head),
    )


def _made(config: Any, trust: bool) -> PreTrainedModel:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=trust).eval()
    # The default on CPUs is a loop over the experts that are really chosen, which nothing chooses here.
    model.set_experts_implementation("batched_mm")
    return model


@torch.no_grad()
def _passed(model: PreTrainedModel, length: int) -> tuple[int, Any]:
    """Return the operations of a pass over tokens, and the cache that it leaves."""
    ids_1T = torch.zeros(1, length, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        output = model(input_ids=ids_1T, use_cache=True)
    return counter.get_total_flops(), output.get("past_key_values", output.get("cache_params"))


def _caches(cache: Any, text: Any) -> Iterator[Cache]:
    kinds: Counter[tuple[int, int | None, int]] = Counter()
    for layer in getattr(cache, "layers", ()):
        keys, values = (getattr(layer, name, None) for name in ("keys", "values"))
        per_token = 0
        if isinstance(keys, Tensor) and isinstance(values, Tensor):
            per_token = (keys.numel() + values.numel()) // keys.shape[-2]
        if per_token and text.model_type in _EXPANDED_ON_SERVERS:
            per_token = 2 * text.num_attention_heads * (text.qk_nope_head_dim + text.qk_rope_head_dim)
        states = sum(t.numel() for key, t in _tensors(vars(layer)) if key not in ("keys", "values"))
        kinds[per_token, getattr(layer, "sliding_window", None), states] += 1
    rest = sum(tensor.numel() for key, tensor in _tensors(vars(cache) if cache else {}) if key != "layers")
    if rest:
        kinds[0, None, rest] += 1
    for (per_token, window, states), layers in kinds.items():
        if per_token or states:
            yield Cache(layers, per_token, window, states)


def _tensors(values: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested lists and dictionaries, without counters, each with the outermost name."""
    if isinstance(values, Tensor) and values.dim() > 1:
        yield name, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _tensors(value, name or str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value, name)


def _fewest_heads(cache: Any) -> int:
    keys = [getattr(layer, "keys", None) for layer in getattr(cache, "layers", ())]
    return min((k.shape[1] for k in keys if isinstance(k, Tensor)), default=1)


def _linears(model: nn.Module, head: Any) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            found[name.rpartition(".")[2]] += module.in_features + module.out_features
    return dict(found)


def _most(text: Any, field: str) -> int:
    """Return the largest value of a field, which may differ between layers; 0 where there is none."""
    sections = text.per_layer_config if getattr(text, "is_heterogeneous", False) else [text]
    values = [getattr(section, field, None) for section in sections]
    return max(
        (n for value in values for n in (value if isinstance(value, list) else [value]) if n), default=0
    )


def main(folder: str, *, trust: bool) -> str:
    """Return the size, or `why` there is none, as JSON."""
    try:
        return json.dumps(asdict(count_size(load_config(folder, trust=trust), folder, trust=trust)))
    except Exception as error:  # a family's own code, with tensors that it was not written for
        return json.dumps({"why": first_line(error)})


if __name__ == "__main__":
    found = main(sys.argv[1], trust="--trust" in sys.argv[2:])
    sys.stdout.write(f"\n{found}\n")  # the last line, whatever a family's own code has printed
