"""How PyTorch's allocator for GPUs is set, unless the user has set it."""

from __future__ import annotations

from collections.abc import Mapping

VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""All that torch 2.11 to 2.13 reads; the first one is its present name and wins."""


def allocator_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return what a training process on GPUs gets into its environment.

    Every micro-batch has another length, and fixed segments of those sizes leave gaps that a step close to
    the limit cannot use. Servers do not get it: vLLM's memory pool for sleep mode refuses it.
    """
    return {} if any(name in env for name in VARIABLES) else {VARIABLES[0]: "expandable_segments:True"}
