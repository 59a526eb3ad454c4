"""TRL's fused LM head, held to the model's own forward.

TRL's trainers give a model a second forward, `fused_lm_head=True`, that projects hidden states by the head's
weight. It knows scales and caps of some families by the names of config fields, and takes `base_model` for
the backbone. What is overridden here is that forward, where it does not give what the model's own does: for
other families, and for heads that are more than a weight. The model's own forward is then called, a few
positions at a time, and gradients pass through it.

N positions, B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from rlt.errors import ModelError
from rlt.models.family import require_same
from rlt.models.logprobs import own_slices, without_adapters
from rlt.models.own_head import OwnHead, Sample, find_own_head, is_partitioned

logger = logging.getLogger(__name__)
IGNORED = -100
"""The label of a token that the loss ignores."""


@contextmanager
def adapters_on_the_head() -> Iterator[None]:
    """Let TRL's trainers be made for a model with adapters on its LM head.

    Their constructors refuse one (ValueError, once the weights are loaded), because their fused head reads
    the weight inside the adapter. `hold_to_own_head` calls the head instead, adapters and all.
    """

    class Nothing:
        """Takes the place of peft's BaseTunerLayer in the constructors' check."""

    loaded = [sys.modules.get(f"trl.trainer.{name}_trainer") for name in ("grpo", "sft")]
    modules: list[Any] = [module for module in loaded if hasattr(module, "BaseTunerLayer")]
    before = [module.BaseTunerLayer for module in modules]  # none without peft
    for module in modules:
        module.BaseTunerLayer = Nothing
    try:
        yield
    finally:
        for module, kind in zip(modules, before, strict=True):
            module.BaseTunerLayer = kind


def hold_to_own_head(model: nn.Module, temperature: float = 1.0) -> None:
    """Make a model's fused LM head, which TRL has given it, agree with the model's own forward.

    A few tokens show at once whether it does; of a model that is sharded with ZeRO-3 the first pass.
    """
    inner: Any = without_adapters(model)
    require_head_of_its_own(inner)
    fused = inner.forward
    head = LossHead(inner, fused, temperature)

    @functools.wraps(fused)
    def forward(_: nn.Module, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        return head(*args, **kwargs) if fused_lm_head else fused(*args, **kwargs)

    inner.forward = types.MethodType(forward, inner)
    if not is_partitioned(inner):
        head.look(inner.device)


def require_head_of_its_own(model: Any) -> None:
    """Raise ModelError for adapters on a head whose weight is the input embeddings' too.

    Merged for the servers and for saving, they would change the embeddings as well.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "get_base_layer"):  # peft's layers have it
        return
    if head.get_base_layer().weight is model.get_input_embeddings().weight:
        raise ModelError(
            f"the LM head of {type(model).__name__} shares its weight with the input embeddings, which "
            "adapters on the head would change too once they are merged: take the head out of "
            "model.lora.target_modules"
        )


class LossHead:
    """From a model's inputs and labels to what TRL's losses read."""

    def __init__(self, model: Any, fused: Callable[..., Any], temperature: float) -> None:
        """`fused` is the model's forward with TRL's fused head."""
        self._model = model
        self._fused = fused
        self._temperature = temperature
        self._sample: Sample | None = None
        self._is_right: dict[int, bool] = {}
        """By the head's id: whether TRL's fused head gives the model's own log-probabilities."""

    def __call__(self, *args: Any, input_ids: Tensor, labels: Tensor, **kwargs: Any) -> FusedCausalLMOutput:
        """Return TRL's outputs, (B, T - 1) each."""
        sample = self.look(input_ids.device)
        if self._trl_is_right(sample):
            return self._fused(*args, input_ids=input_ids, labels=labels, fused_lm_head=True, **kwargs)
        return self._outputs(sample.own, *args, input_ids=input_ids, labels=labels, **kwargs)

    def look(self, device: torch.device) -> Sample:
        """Find out how the model makes its logits, once; collective where it is sharded."""
        if self._sample is None:
            self._sample = find_own_head(self._model, self._fused, device)
            self._trl_is_right(self._sample)
        return self._sample

    def _trl_is_right(self, sample: Sample) -> bool:
        """Whether TRL's head agrees; one that wraps its weight may do more to it after some steps."""
        head = sample.own.embeddings
        if type(head) is not nn.Linear:
            return False
        if id(head) not in self._is_right:
            self._is_right[id(head)] = self._agrees(sample)
            if not self._is_right[id(head)]:
                logger.info(
                    "TRL's fused LM head does not give the logits of %s: the loss takes them from the "
                    "model's own forward, some positions at a time",
                    type(self._model).__name__,
                )
        return self._is_right[id(head)]

    @torch.no_grad()
    def _agrees(self, sample: Sample) -> bool:
        def score(hidden_ND: Tensor, ids_N: Tensor) -> Tensor:
            ids_1N = ids_N.unsqueeze(0)
            with sample.own.given(hidden_ND):
                values_1N: Tensor = self._fused(input_ids=ids_1N, labels=ids_1N, fused_lm_head=True).log_probs
            return values_1N[0]

        try:
            return sample.agrees(score, self._temperature)
        except (AttributeError, TypeError, RuntimeError):  # TRL's code, with a module that is no backbone
            return False

    def _outputs(
        self,
        own: OwnHead,
        *args: Any,
        input_ids: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> FusedCausalLMOutput:
        if kwargs.pop("output_router_logits", False):
            raise ModelError(
                f"the auxiliary loss of the experts of {type(self._model).__name__} cannot be computed here, "
                "where its logits come from its own forward: set trainer_args.router_aux_loss_coef=0"
            )
        hidden_BTD, targets_BT = own.hidden(*args, input_ids=input_ids, **kwargs)[:, :-1], labels[:, 1:]
        mask_BT = targets_BT != IGNORED
        columns = own_slices(own, hidden_BTD[mask_BT], input_ids[:, :-1][mask_BT], targets_BT[mask_BT])
        parts = [checkpoint(self._score, own, *part, use_reentrant=False) for part in columns]
        zero = hidden_BTD.sum() * 0.0  # a batch without labels still has gradients, of 0
        values = [
            zero.float().expand(mask_BT.shape).masked_scatter(mask_BT, torch.cat(column)) if parts else None
            for column in (zip(*parts, strict=True) if parts else [()] * 3)
        ]
        log_probs, entropy, is_top1 = (zero.float().expand(mask_BT.shape) if v is None else v for v in values)
        count = mask_BT.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / count,
            log_probs=log_probs,
            entropy=entropy,
            is_top1=is_top1.bool(),
            label_mask=mask_BT,
        )

    def _score(
        self, own: OwnHead, hidden_ND: Tensor, ids_N: Tensor, targets_N: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, entropy, and whether the target is the most likely token; (N,) each."""
        logprobs_NV = (own.logits(hidden_ND, ids_N).float() / self._temperature).log_softmax(1)
        entropy_N = -(logprobs_NV.exp() * logprobs_NV.clamp(min=torch.finfo(torch.float32).min)).sum(1)
        is_top1_N = (logprobs_NV.argmax(1) == targets_N).float()
        return logprobs_NV.gather(1, targets_N.unsqueeze(1)).squeeze(1), entropy_N, is_top1_N


def check_loss(tiny: Any, name: str, peft_config: Any = None) -> None:
    """Raise ModelError unless the loss on a tiny model is that of the model's own forward.

    Adapters are given random values: new ones change nothing.
    """
    if peft_config is not None:
        from peft import get_peft_model

        tiny = get_peft_model(tiny, peft_config)
        with torch.no_grad():
            for key, parameter in tiny.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.1)
        tiny.eval()
    ids_1T = torch.arange(2, 26).mul(5).unsqueeze(0) % tiny.config.get_text_config().vocab_size
    with torch.no_grad():
        logits_TV = tiny(input_ids=ids_1T).logits[0, :-1].float()
        add_fused_lm_head(without_adapters(tiny))
        hold_to_own_head(tiny)
        ours_1T: Tensor = tiny(input_ids=ids_1T, labels=ids_1T, fused_lm_head=True).log_probs
    require_same(ours_1T[0], logits_TV, ids_1T[0, 1:], f"the loss's log-probabilities of {name}")
