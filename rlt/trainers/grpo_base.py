"""TRL's GRPO trainer, imported without the vLLM that its own generation would load.

Where vLLM is installed, `trl.generation` imports it into the training process. Generation here goes over HTTP
(rlt/generation), so that would be 3 s and 160 MB in every process for nothing, and `vllm.env_override` would
change settings of torch's compiler there. While the trainer is imported, TRL finds no vLLM.
Its own `use_vllm` thus finds none afterwards; it is not handed on (arguments.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _without_vllm() -> Iterator[None]:
    """TRL's modules that are imported inside see no vLLM."""
    imports: Any = importlib.import_module("trl.import_utils")
    before = imports.is_vllm_available
    imports.is_vllm_available = lambda *_, **__: False
    try:
        yield
    finally:
        imports.is_vllm_available = before


with _without_vllm():
    from trl.trainer.grpo_trainer import GRPOTrainer

__all__ = ["GRPOTrainer"]
