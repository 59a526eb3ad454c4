"""`deepspeed.zero.Init` that casts parameters only, and whose models compute what a plain load computes.

Overridden: inside `zero.Init`, DeepSpeed wraps torch's tensor constructors, and every new floating tensor
becomes the training dtype. A rotary table (`inv_freq`, float32 in every plain load) becomes bfloat16, and
transformers then copies the right frequencies into that rounded table. Angles are wrong by a radian at
distance 1,000, and the trained network is not the one that vLLM and `from_pretrained` run.

Here the constructors keep the dtype that the model's code asks for, and parameters alone are cast, just
before they are partitioned. From there on transformers treats buffers as in a plain load: it computes
non-persistent ones again, on the CPU (`_init_weights`), and copies persistent ones from the checkpoint.

Why the tables are not repaired after loading instead: persistent buffers (an `expert_bias` in float32) have
lost their digits by then, and remote code makes tables that `_init_weights` does not know. DeepSpeed's own
`keep_in_fp32_modules` covers the buffers that a family lists, and no family lists its rotary table. Engines
that are made later (policy, reference, student) cast parameters only, so nothing has to be undone there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

logger = logging.getLogger(__name__)
_MADE_IN_FLOAT32 = "_rlt_made_in_float32"


@contextmanager
def buffers_left_alone() -> Iterator[None]:
    """Let models that are made or loaded in this context keep the dtype of their buffers under ZeRO-3.

    transformers opens `deepspeed.zero.Init` itself, without options, so the class is replaced for a while. It
    does so where ZeRO-3 is on, which has to be known when this context is entered.
    """
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    original = deepspeed.zero.Init
    deepspeed.zero.Init = _parameters_only(original)
    try:
        yield
    finally:
        deepspeed.zero.Init = original


def rounded_parameters(model: nn.Module) -> list[str]:
    """Return the parameters that DeepSpeed rounds to bfloat16, and that a plain load keeps in float32.

    A family lists them (`_keep_in_fp32_modules_strict`), or makes them in float32. No engine of ZeRO-1 or 2,
    which round later, may be made of the model yet. A model in float32 is not rounded at all.
    """
    from deepspeed.runtime.keep_in_fp32 import keep_in_fp32_pattern

    named = [(n, p) for n, p in model.named_parameters() if p.is_floating_point()]
    named = [(n, p) for n, p in named if "lora_" not in n]  # PEFT keeps its own in float32 everywhere
    if all(p.dtype == torch.float32 for _, p in named):
        return []
    listed = keep_in_fp32_pattern(model, None, torch.bfloat16)
    return [
        name
        for name, parameter in named
        if parameter.dtype == torch.float32
        or getattr(parameter, _MADE_IN_FLOAT32, False)
        or (listed is not None and listed.search(name))
    ]


def warn_of_rounded_parameters(model: Any, remedy: str) -> None:
    """Warn where DeepSpeed rounds parameters that a plain load of this model in bfloat16 does not."""
    rounded = rounded_parameters(model)
    if not rounded:
        return
    kinds = list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in rounded))
    listed = ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more kinds" if len(kinds) > 3 else "")
    count = "1 parameter" if len(rounded) == 1 else f"{len(rounded)} parameters"
    logger.warning(
        "DeepSpeed rounds %s of %s to bfloat16 that a plain load keeps in float32 (%s): the model computes "
        "something else here; %s keeps them in float32",
        *(count, model.config.name_or_path, listed, remedy),
    )


def _parameters_only(base: Any) -> Any:
    from deepspeed.runtime.zero.linear import LinearFunctionForZeroStage3, zero3_linear_wrap
    from deepspeed.runtime.zero.partition_parameters import DeepSpeedTensorOverride

    class RoundedOnce(LinearFunctionForZeroStage3):
        """DeepSpeed's linear function, whose backward pass gathers a weight again, with torch's forward.

        DeepSpeed's own forward rounds the product to bfloat16 before it adds the bias: 0.009 nats a token in
        a tiny Qwen2. No graph is recorded in here, so no view keeps a gathered weight alive.
        """

        @staticmethod
        def forward(input: Any, weight: Any, bias: Any = None) -> Any:
            return base.linear_bk(input, weight, bias)

    def linear(input: Any, weight: Any, bias: Any = None) -> Any:
        return RoundedOnce.apply(input, weight, bias)

    class ParametersOnly(base):
        """`zero.Init` whose wrapped constructors choose the device, as before, but not the dtype."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{"tensor_overrides": [DeepSpeedTensorOverride.device], **kwargs})

        def _post_init_method(self, module: nn.Module) -> None:
            # DeepSpeed partitions the module's own parameters here. Some are made in float32 by name.
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and not hasattr(parameter, "ds_id"):
                    setattr(parameter, _MADE_IN_FLOAT32, parameter.dtype == torch.float32)
                    parameter.data = parameter.data.to(self.dtype)
            super()._post_init_method(module)

        def _enable_mem_efficient_linear(self) -> None:
            # DeepSpeed replaces torch's function for as long as the process lives, for every model in it.
            super()._enable_mem_efficient_linear()
            if nn.functional.linear is zero3_linear_wrap:
                nn.functional.linear = linear

    return ParametersOnly
