"""A look at what a model's family does, on a tiny random one of the same configuration, before weights load.

N positions.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlt.errors import ModelError, first_line
from rlt.models.load import load_config
from rlt.models.logprobs import Request, add_token_query, token_logprobs
from rlt.models.own_head import find_own_head
from rlt.models.tiny import tiny_like

logger = logging.getLogger(__name__)
_LENGTHS = (24, 13)
"""Tokens of the texts that are scored; the shorter one is padded."""
_ROUNDING = 1e-5
"""Of a log-probability, relative to the largest logit: tiny models are in float32."""


def tiny_of(name: str, *, revision: str | None = None, trust: bool = False) -> PreTrainedModel | None:
    """Return a tiny model of the configuration of a folder or a Hub name.

    None where there can be none; the log says why.
    """
    try:
        tiny = tiny_like(load_config(name, revision=revision, trust=trust), name, trust=trust)
        with torch.no_grad():
            tiny(input_ids=torch.arange(_LENGTHS[0]).unsqueeze(0))
    except Exception as error:  # a family's own code, with sizes that it was not written for
        logger.info("the family of %s is checked when its weights load, not now: %s", name, first_line(error))
        return None
    return tiny


@torch.no_grad()
def check_logprobs(tiny: PreTrainedModel, name: str) -> None:
    """Raise ModelError unless log-probabilities of chosen tokens are those of the model's own forward."""
    texts = [torch.arange(3, 3 + length).mul(7) % _vocabulary(tiny) for length in _LENGTHS]
    own = [tiny(input_ids=ids_T.unsqueeze(0)).logits[0, :-1].float() for ids_T in texts]
    add_token_query(tiny)
    requests = [Request(ids_T.tolist(), range(1, len(ids_T))) for ids_T in texts]
    ours = token_logprobs(
        tiny, requests, temperature=1.0, tokens_per_batch=sum(_LENGTHS) * 2, device=torch.device("cpu")
    )
    for ids_T, logits_NV, ours_N in zip(texts, own, ours, strict=True):
        require_same(ours_N, logits_NV, ids_T[1:], f"log-probabilities of {name}")


@torch.no_grad()
def scales_with_head(tiny: PreTrainedModel) -> bool:
    """Whether dividing weight and bias of the LM head divides the logits, also where they are large."""
    sample = find_own_head(tiny, tiny.forward, torch.device("cpu"))
    before = list(sample.logits())
    for parameter in sample.own.embeddings.parameters():
        parameter.div_(2)
    after = list(sample.logits())
    for parameter in sample.own.embeddings.parameters():
        parameter.mul_(2)
    return all(torch.allclose(b, 2 * a, rtol=1e-4, atol=1e-5) for a, b in zip(after, before, strict=True))


def require_same(ours_N: Tensor, logits_NV: Tensor, targets_N: Tensor, what: str) -> None:
    """Raise ModelError unless values are the log-softmax of a model's own logits."""
    expected_N = logits_NV.log_softmax(1).gather(1, targets_N.unsqueeze(1)).squeeze(1)
    worst = (ours_N - expected_N).abs().max().item()
    if not worst <= _ROUNDING * (1 + logits_NV[logits_NV > -1e30].abs().max().item()):
        raise ModelError(
            f"{what} cannot be taken: on a tiny model of the same configuration they differ by {worst:.2g} "
            "from those of its own forward; take another model"
        )


def _vocabulary(model: Any) -> int:
    return model.config.get_text_config().vocab_size
