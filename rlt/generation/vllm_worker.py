"""What our vLLM servers add to their workers (`--worker-extension-cls`). Imported by vLLM, not by us.

On a CPU vLLM 0.31 keeps packed copies of some weights. A reload renews those of the layers it loads, but for
two. A head that is tied to the embeddings is never loaded by itself: the server would continue with the
head it started with. And a mixture's experts are packed at the start alone: after a reload the plain
weights would be read as if they were packed.
"""

from __future__ import annotations

from typing import Any

EXTENSION = "rlt.generation.vllm_worker.PackedReload"
RELOAD = "reload_weights_and_pack"
"""The method to ask for over /collective_rpc."""


class PackedReload:
    """Mixed into vLLM's worker class."""

    reload_weights: Any
    model_runner: Any

    def reload_weights_and_pack(self, weights_path: str) -> None:
        """Load a checkpoint, then pack again what vLLM does not."""
        self.reload_weights(weights_path=weights_path)
        model = self.model_runner.get_model()
        head = getattr(getattr(model, "language_model", model), "lm_head", None)  # beside parts for images
        if head is not None and getattr(head, "quant_method", None) is not None:
            head.quant_method.process_weights_after_loading(head)
        if next(model.parameters()).device.type != "cpu":
            return
        for layer in model.modules():
            kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
            if kernel is not None:
                kernel.fused_experts.process_weights_after_loading(layer)
