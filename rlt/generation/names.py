"""The names under which servers take a trainer's weights: those of the checkpoint that they serve.

vLLM loads new weights by the names of a checkpoint, as it did at its start: it raises for names that it does
not know, and keeps the old weights, with no more than a line in its log, where some do not come. A trainer's
parameters may have other names: transformers joins the experts of a mixture in one tensor, and takes a
text-only class for a checkpoint with parts for images, whose language model is below another prefix.
Transformers knows how it has changed what it read, and can go back; where that does not give the names of
the served checkpoint (an older layout), a prefix is looked for under which all names and shapes agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from rlt.errors import ModelError
from rlt.generation.weights import own_parameters

Shape = tuple[int, ...]
_NUM_NAMED = 3
_REMEDY = (
    "generate with generation.backend=transformers, or save the model again with save_pretrained of the "
    "class that is trained and start from there"
)
_LAYER = re.compile(r"(?<=\.)\d+\.")
"""Where the number of a layer is in a name."""
_TIED_OR_CALCULATED = re.compile(r"lm_head\.weight$|rotary_emb\.inv_freq$")
"""Of a checkpoint that may hold the embedding twice, or tables that are calculated at load."""


class Names:
    """From a trainer's tensors to those of a checkpoint."""

    def __init__(self, model: Any, prefixes: Mapping[str, str] | None = None) -> None:
        """`prefixes` are those of checkpoint names that are replaced, longest first."""
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._prefixes = dict(sorted((prefixes or {}).items(), key=lambda pair: -len(pair[0])))

    def __call__(self, weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of a checkpoint, of which one parameter may hold several."""
        for name, tensor in weights:
            # One at a time: under ZeRO-3 the next one comes when this one is given back.
            for key, part in revert_weight_conversion(self._model, {name: tensor}).items():
                yield self.renamed(key), part

    def renamed(self, key: str) -> str:
        """Return the served name of a checkpoint's tensor."""
        for old, new in self._prefixes.items():
            if key.startswith(old):
                return new + key[len(old) :]
        return key


def served_names(model: Any, served: Mapping[str, Shape] | None, name: str) -> Names:
    """Return the names for servers of the checkpoint `name`, whose tensors are `served`.

    None where these are not known: names are then what transformers would save. Raises ModelError unless each
    of the trainer's tensors has one of the same shape there, and all of the language model are reached.
    """
    if served is None:
        return Names(model)
    own = _checkpoint_shapes(Names(model), model, name)
    prefixes = _find_prefixes(own, served)
    names = Names(model, prefixes)
    targets = {names.renamed(key): key for key in own}
    lost = sorted(key for key in own if served.get(names.renamed(key)) != own[key])
    if lost or len(targets) < len(own):
        raise ModelError(
            f"the weights that are trained cannot be sent to servers of {name!r}: its checkpoint has no "
            f"tensors for {_listed(lost or sorted(own), own)}; {_REMEDY}"
        )
    missing = sorted(_of_the_language_model(set(served) - set(targets), set(targets), model))
    if missing:
        raise ModelError(
            f"the weights that are trained cannot be sent to servers of {name!r}: nothing is trained for "
            f"{_listed(missing, served)} of its checkpoint, which servers would keep as they were; {_REMEDY}"
        )
    return names


def _checkpoint_shapes(names: Names, model: Any, name: str) -> dict[str, Shape]:
    """Return the shapes of what would be sent, found on tensors without numbers."""
    shapes = ((key, getattr(p, "ds_shape", p.shape)) for key, p in own_parameters(model))
    bare = ((key, torch.empty(tuple(shape), device="meta")) for key, shape in shapes)
    try:
        return {key: tuple(tensor.shape) for key, tensor in names(bare)}
    except Exception as error:  # transformers' way back may need several parameters for one tensor
        raise ModelError(
            f"the weights that are trained cannot be sent to servers of {name!r}: they cannot be taken apart "
            "into the tensors of its checkpoint one by one; generate with generation.backend=transformers"
        ) from error


def _find_prefixes(own: Mapping[str, Shape], served: Mapping[str, Shape]) -> dict[str, str]:
    """Return prefixes of own names with those in whose place they are, as far as there is exactly one."""
    left = {key: shape for key, shape in own.items() if served.get(key) != shape}
    found: dict[str, str] = {}
    while left:
        first = min(left)
        starts = [0, *(i + 1 for i, letter in enumerate(first) if letter == ".")]
        # From the longest rest, so from the shortest prefix; `weight` alone would be anywhere.
        for start in starts[:-1]:
            old, rest = first[:start], first[start:]
            places = {key[: -len(rest)] for key in served if key.endswith(rest)}
            moved = [key for key in left if key.startswith(old)]
            good = [new for new in places if all(served.get(new + k[start:]) == left[k] for k in moved)]
            if len(good) == 1:
                found[old] = good[0]
                left = {key: shape for key, shape in left.items() if key not in moved}
                break
        else:
            return found
    return found


def _of_the_language_model(names: set[str], targets: set[str], model: Any) -> Iterator[str]:
    """Yield the names of layers beside the sent ones, but for those that transformers ignores."""
    places = tuple({key[: found.start()] for key in targets if (found := _LAYER.search(key))})
    ignored = [re.compile(rule) for rule in model._keys_to_ignore_on_load_unexpected or ()]
    for key in names:
        skipped = _TIED_OR_CALCULATED.search(key) or any(rule.search(key) for rule in ignored)
        if places and key.startswith(places) and not skipped:
            yield key


def _listed(names: list[str], shapes: Mapping[str, Shape]) -> str:
    some = ", ".join(f"{key} {list(shapes[key])}" for key in names[:_NUM_NAMED])
    return some + (f" and {len(names) - _NUM_NAMED} others" if len(names) > _NUM_NAMED else "")
