"""From hidden states to logits by a model's own forward, a few positions at a time.

Families differ in what they do after their backbone: soft caps, scales, muP multipliers, biases, masked
entries, a transform before the head, adapters on it. None of it is written down here. The backbone is
replaced for a moment by one that returns given hidden states, and the model's own forward does the rest.

The backbone is found by what it returns for a few tokens: the outermost module whose `last_hidden_state`,
given to the rest of the forward, gives the model's logits. `base_model` is something else in adapters'
wrappers and in some multimodal models.

N positions, B sequences, T tokens, D dimensions, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlt.errors import ModelError

Score = Callable[[Tensor, Tensor], Tensor]
"""From hidden states (N, D) and ids (N,) to the log-probability of each id but the first, (N - 1,)."""

_NUM_TOKENS = 8
"""Tokens with which a backbone is found."""
_NUM_BEFORE = 5
"""Tokens of a prefix, whose logits must not change with what follows."""
_MULTIPLES = (0.0, 1.0, 30.0, 1000.0)
"""Of real hidden states: none shows a bias, large ones show a cap that real ones do not reach."""
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Relative difference that rounding explains; in narrower dtypes `_NARROW_ROUNDING`."""
_NARROW_ROUNDING = 2.0**-6
_MASKED = -1e30
"""Logits below are masked entries."""


class OwnHead:
    """What a model's own forward does after its backbone."""

    def __init__(
        self, model: PreTrainedModel, forward: Callable[..., Any], backbone: nn.Module, output: type
    ) -> None:
        """`forward` is the model's, untouched; `output` is the type of what the backbone returns."""
        self._model = model
        self._forward = forward
        self._options = _no_cache(model)
        self._output = output
        self.backbone = backbone
        self.vocabulary = 0
        """Logits of a position."""

    @property
    def embeddings(self) -> Any:
        """The output embeddings as they are now: adapters may have been put on them."""
        return self._model.get_output_embeddings()

    @property
    def is_linear_module(self) -> bool:
        """Whether the head is nothing but a weight and a bias: no adapter, no quantisation, no wrapper."""
        return type(self.embeddings) is nn.Linear and "forward" not in self.embeddings.__dict__

    def hidden(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the backbone's last hidden states, shape (B, T, D)."""
        return self.backbone(*args, **{**kwargs, "use_cache": False}).last_hidden_state

    def logits(self, hidden_ND: Tensor, ids_N: Tensor) -> Tensor:
        """Return the logits of some positions, shape (N, V); `ids_N` are the tokens read there."""
        with self.given(hidden_ND):
            return self._forward(input_ids=ids_N.unsqueeze(0), **self._options).logits[0]

    @contextmanager
    def given(self, hidden_ND: Tensor) -> Iterator[None]:
        """Let the backbone return these hidden states of one row, whatever it reads."""
        output = self._output(last_hidden_state=hidden_ND.unsqueeze(0))
        before = self.backbone.__dict__.get("forward")
        self.backbone.forward = lambda *_args, **_kwargs: output
        try:
            yield
        finally:
            if before is None:
                del self.backbone.forward
            else:
                self.backbone.forward = before


class Sample:
    """A few tokens with their hidden states, by which heads are distinguished."""

    def __init__(self, own: OwnHead, hidden_ND: Tensor, ids_N: Tensor) -> None:
        self.own = own
        self._hidden_ND = hidden_ND
        self._ids_N = ids_N

    def logits(self) -> Iterator[Tensor]:
        """Yield the model's own logits for each multiple of the hidden states, (N, V)."""
        for multiple in _MULTIPLES:
            yield self.own.logits(self._hidden_ND * multiple, self._ids_N)

    def agrees(self, score: Score, temperature: float = 1.0) -> bool:
        """Whether a way to score gives what the model's own logits do at a temperature, up to rounding.

        Also for hidden states far larger than real ones, where a cap shows that training may reach.
        """
        targets_N1 = self._ids_N[1:].unsqueeze(1)
        rounding = max(_rounding(self._hidden_ND), _rounding(self.own.embeddings.weight))
        for multiple, own_NV in zip(_MULTIPLES, self.logits(), strict=True):
            hidden_ND, logits_NV = self._hidden_ND * multiple, own_NV[:-1].double() / temperature
            expected_N = logits_NV.log_softmax(1).gather(1, targets_N1).squeeze(1)
            ours_N = score(hidden_ND, self._ids_N).double()
            if not _close(ours_N, expected_N, rounding * (1 + _largest(logits_NV))):
                return False
        return True


def is_partitioned(module: nn.Module) -> bool:
    """Whether DeepSpeed ZeRO-3 spreads a module over the processes."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())


@torch.no_grad()
def find_own_head(model: PreTrainedModel, forward: Callable[..., Any], device: torch.device) -> Sample:
    """Return a model's own head, with the tokens that it was found by.

    Collective where the model is sharded. Raises ModelError, with the name of the model's class, where no
    module gives its logits position by position, or where they depend on the tokens that follow.
    """
    training = model.training
    model.eval()  # dropout would make every pass another one
    try:
        return _find(model, forward, device)
    finally:
        model.train(training)


def _find(model: PreTrainedModel, forward: Callable[..., Any], device: torch.device) -> Sample:
    vocabulary = model.config.get_text_config().vocab_size
    ids_N = torch.tensor([(7 * i + 3) % vocabulary for i in range(_NUM_TOKENS)], device=device)
    options, ids_1N = _no_cache(model), ids_N.unsqueeze(0)
    with _recorded(model) as returned:
        logits_NV = forward(input_ids=ids_1N, **options).logits[0]
    # In a narrow dtype another length may send a token to another expert.
    if _rounding(logits_NV) < _NARROW_ROUNDING:
        before_NV = forward(input_ids=ids_1N[:, :_NUM_BEFORE], **options).logits[0]
        if not _same(before_NV, logits_NV[:_NUM_BEFORE]):
            raise ModelError(
                f"{_named(model)} reads tokens that follow: its logits change with them, so they give no "
                "probability of a text; take a causal model"
            )
    for module, output in returned:
        own = OwnHead(model, forward, module, type(output))
        hidden_ND = output.last_hidden_state[0]
        try:
            is_own = _same(own.logits(hidden_ND, ids_N), logits_NV) and _same(
                own.hidden(input_ids=ids_1N)[0], hidden_ND
            )
        except Exception:
            continue
        if is_own:
            own.vocabulary = logits_NV.shape[1]
            return Sample(own, hidden_ND, ids_N)
    raise ModelError(
        f"the logits of {_named(model)} are not made from the last hidden states of a module of its own, "
        "position by position, so the log-probabilities of chosen tokens cannot be taken; take another model"
    )


@contextmanager
def _recorded(model: PreTrainedModel) -> Iterator[list[tuple[nn.Module, Any]]]:
    """Open a list of the modules that return hidden states, outermost first, with what they return."""
    found: list[tuple[int, nn.Module, Any]] = []
    returned: list[tuple[nn.Module, Any]] = []
    hooks = []
    for name, module in model.named_modules():
        if module is model:
            continue

        def record(module: nn.Module, _: Any, output: Any, depth: int = name.count(".")) -> None:
            if isinstance(getattr(output, "last_hidden_state", None), Tensor):
                found.append((depth, module, output))

        hooks.append(module.register_forward_hook(record))
    try:
        yield returned
    finally:
        for hook in hooks:
            hook.remove()
        returned += [(module, output) for _, module, output in sorted(found, key=lambda entry: entry[0])]


def _no_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def _same(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    return _close(ours.double(), theirs.double(), _rounding(theirs) * (1 + _largest(theirs)))


def _largest(logits: Tensor) -> float:
    kept = logits[logits > _MASKED]
    return kept.abs().max().item() if len(kept) else 0.0


def _close(ours: Tensor, theirs: Tensor, limit: float) -> bool:
    """Whether all numbers are close; what is no number in one has to be none in the other."""
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    return bool((same | ((ours - theirs).abs() <= limit)).all())


def _rounding(values: Tensor) -> float:
    kind = values.device.type
    if torch.is_autocast_enabled(kind):
        return _ROUNDING.get(torch.get_autocast_dtype(kind), _NARROW_ROUNDING)
    return _ROUNDING.get(values.dtype, _NARROW_ROUNDING)


def _named(model: PreTrainedModel) -> str:
    return f"{type(model).__name__} ({model.config.model_type})"
