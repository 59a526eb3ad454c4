"""The compilers that a run needs: Triton and DeepSpeed build native parts while it runs.

Without one they fail after the models have loaded. nvcc is not needed: DeepSpeed builds its CPU Adam alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlt.config.schema import Config, stage_of
from rlt.device_plan import Plan
from rlt.errors import ConfigError


@dataclass(frozen=True)
class Compiler:
    """A compiler as a library looks for it."""

    language: str
    variable: str
    """Names one; nothing else is tried then."""
    names: tuple[str, ...]
    """On PATH, any of them."""


C_OF_TRITON = Compiler("C", "CC", ("gcc", "clang"))
"""triton/runtime/build.py, `_find_compiler`."""
CXX_OF_TORCH = Compiler("C++", "CXX", ("c++",))
"""torch/utils/cpp_extension.py, `get_cxx_compiler`, with which DeepSpeed builds."""


def check_compilers(config: Config, plan: Plan, env: Mapping[str, str]) -> None:
    """Raise ConfigError for a compiler that the run will look for and not find."""
    for compiler, purpose in _needed(config, plan):
        if problem := _problem(compiler, env):
            raise ConfigError(
                f"{purpose} needs a {compiler.language} compiler, and {problem}: install gcc and g++, or "
                f"name one with {compiler.variable}=PROGRAM."
            )


def _needed(config: Config, plan: Plan) -> Iterator[tuple[Compiler, str]]:
    if any(plan.servers):
        yield C_OF_TRITON, "a vLLM server on GPUs (Triton)"
    if not stage_of(config).trains:
        return
    if not plan.on_cpu:
        yield C_OF_TRITON, "training on GPUs (Triton)"
    if plan.strategy == "offload":
        yield CXX_OF_TORCH, "`offload` (DeepSpeed's Adam for host memory)"
    elif plan.on_cpu and plan.strategy not in ("single", "ddp"):
        yield CXX_OF_TORCH, f"`{plan.strategy}` on a CPU (DeepSpeed's collectives)"


def _problem(compiler: Compiler, env: Mapping[str, str]) -> str | None:
    """Return why a compiler will not be found; None where it will."""
    path, named = env.get("PATH"), env.get(compiler.variable)
    if named is None:
        if any(shutil.which(name, path=path) for name in compiler.names):
            return None
        return f"there is no {' or '.join(compiler.names)} on PATH"
    program = named.split()[0] if named.split() else ""  # `ccache g++` is one for torch
    if shutil.which(program, path=path):
        return None
    return f"{compiler.variable}={named!r} names no program"
