"""What our vLLM servers add to their workers (`--worker-extension-cls`). Imported by vLLM, not by us.

On a CPU vLLM 0.31 keeps a packed copy of the LM head. A reload renews the copy of every layer it loads,
but a head that is tied to the embeddings is never loaded by itself: the server would go on with the head
it started with.
"""

from __future__ import annotations

from typing import Any

EXTENSION = "rlt.generation.vllm_worker.TiedHeadReload"
RELOAD = "reload_weights_and_tied_head"
"""The method to ask for over /collective_rpc."""


class TiedHeadReload:
    """Mixed into vLLM's worker class."""

    reload_weights: Any
    model_runner: Any

    def reload_weights_and_tied_head(self, weights_path: str) -> None:
        """Load a checkpoint, then let the LM head take over the embeddings that it shares."""
        self.reload_weights(weights_path=weights_path)
        model = self.model_runner.get_model()
        model = getattr(model, "language_model", model)  # of one with parts for images
        head = getattr(model, "lm_head", None)
        if head is not None and getattr(head, "quant_method", None) is not None:
            head.quant_method.process_weights_after_loading(head)
