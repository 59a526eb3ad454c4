"""The frozen student where the configuration puts it: in this process, or behind its own servers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psutil
import torch
from accelerate import Accelerator

from rlt.config.schema import Config
from rlt.config.server_key import find_key
from rlt.formats.layout import StudentLayout
from rlt.generation.server_logprobs import ServerLogprobs
from rlt.models.frozen import load_frozen, load_whole
from rlt.models.load import load_context
from rlt.models.logprobs import LogprobModel, Request, token_logprobs
from rlt.models.scaled_head import model_folder, weights_bytes
from rlt.records import Problem
from rlt.stages.common import is_main_process

logger = logging.getLogger(__name__)

NUM_COMPARED = 4
"""Problems on which the servers are compared with the student itself."""
TOKENS_COMPARED = 512
"""Of each of them, at most."""


def student_model(config: Config, name: str, accelerator: Accelerator) -> LogprobModel:
    """Return a frozen student, placed as configured."""
    if config.reward.placement == "server":
        return student_servers(config)
    return load_frozen(
        name,
        placement=config.reward.placement,
        dtype=config.reward.dtype,
        attn_implementation=config.model.attn_implementation,
        accelerator=accelerator,
        trust=config.model.trust_remote_code,
    )


def student_servers(config: Config) -> ServerLogprobs:
    """Return the student behind the configured servers."""
    generation = config.generation
    key = find_key(generation.api_key_file)
    return ServerLogprobs(config.reward.servers, timeout=generation.request_timeout, key=key)


def student_context(config: Config, name: str) -> int | None:
    """Return how many tokens a student reads, None where that is not known.

    Raises GenerationError for a server that does not answer, or not at reward.student_temperature.
    """
    contexts = [load_context(name, trust=config.model.trust_remote_code)]
    if config.reward.placement == "server":
        servers = student_servers(config)
        if is_main_process():
            servers.show_health()
        if not config.generation.allow_open_servers:
            servers.check_doors()
        contexts.append(servers.check(config.reward.student_temperature))
        servers.close()
    return min((context for context in contexts if context is not None), default=None)


def verify_student_servers(config: Config, layout: StudentLayout, problems: Sequence[Problem]) -> None:
    """Raise GenerationError unless the servers score a few problems as the student does on this CPU.

    Only warns where the student's weights are not on this machine or would not fit its memory.
    """
    name, reward = config.student_model, config.reward
    assert name is not None
    folder = model_folder(name, download=False)
    if folder is None:
        logger.warning("the student's servers are not verified: %s is not on this machine", name)
        return
    needed = weights_bytes(folder) * (2 if reward.dtype == "float32" else 1)  # files are mostly bfloat16
    free = psutil.virtual_memory().available
    if needed > free:
        logger.warning(
            "the student's servers are not verified: computing %s here may take %.0f GiB of memory, and "
            "%.0f GiB are free",
            *(name, needed / 2**30, free / 2**30),
        )
        return
    logger.info("comparing the student's servers with %s computed on the CPU", name)
    requests = [_text(layout, problem) for problem in problems[:NUM_COMPARED]]
    cpu = torch.device("cpu")
    trust = config.model.trust_remote_code
    module = load_whole(str(folder), dtype=reward.dtype, device=cpu, trust=trust)
    expected = token_logprobs(
        module,
        requests,
        temperature=reward.student_temperature,
        tokens_per_batch=reward.tokens_per_batch,
        device=cpu,
    )
    servers = student_servers(config)
    servers.compare(requests, expected, name, reward.dtype, reward.student_temperature)
    servers.close()


def _text(layout: StudentLayout, problem: Problem) -> Request:
    ids = [*layout.prefix_ids(problem), *layout.suffix(problem).ids][-TOKENS_COMPARED:]
    return Request(ids, range(1, len(ids)))
