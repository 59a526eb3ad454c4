"""What dtype DeepSpeed adds up the gradients of an optimizer step in."""

from __future__ import annotations

from accelerate import Accelerator


def accumulate_gradients_in(dtype: str, accelerator: Accelerator) -> None:
    """Let DeepSpeed sum gradients in `dtype` (trainer.grad_accum_dtype); before the model is prepared.

    Its default is the model's dtype. accelerate's YAML keys cannot say it (that takes a whole DeepSpeed JSON
    in their place), but its plugin hands this dictionary to `deepspeed.initialize`. Without DeepSpeed weights
    are float32, and so are their gradients.
    """
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None and dtype == "float32":
        plugin.deepspeed_config["data_types"] = {"grad_accum_dtype": "fp32"}
