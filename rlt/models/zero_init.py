"""`deepspeed.zero.Init` that casts parameters only: buffers stay as a plain load makes them.

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

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled


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


def _parameters_only(base: Any) -> Any:
    from deepspeed.runtime.zero.partition_parameters import DeepSpeedTensorOverride

    class ParametersOnly(base):
        """`zero.Init` whose wrapped constructors choose the device, as before, but not the dtype."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{"tensor_overrides": [DeepSpeedTensorOverride.device], **kwargs})

        def _post_init_method(self, module: nn.Module) -> None:
            # DeepSpeed partitions the module's own parameters here. Some are made in float32 by name.
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and not hasattr(parameter, "ds_id"):
                    parameter.data = parameter.data.to(self.dtype)
            super()._post_init_method(module)

    return ParametersOnly
