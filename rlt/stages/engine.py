"""The engine that generates, and its sampling, built from the configuration for any stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

from rlt.config.files import sequence_length
from rlt.config.schema import Config, stage_of
from rlt.config.server_key import find_key
from rlt.errors import GenerationError
from rlt.formats.tags import tag_style
from rlt.generation.server_checks import check_door
from rlt.generation.server_health import health
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import REQUESTS_PER_SERVER, VLLMPool
from rlt.generation.vllm_server import LOADING_VARIABLE, VLLMServer, server_log_path

logger = logging.getLogger(__name__)


def make_sampling(config: Config, stop_token_ids: Sequence[int]) -> Sampling:
    """Return everything that decides a sample of the model besides its prompt and its seed."""
    generation, explains = config.generation, stage_of(config).reads("generation.stop_at_tag")
    close = tag_style(config.layout.tags).explanation.close
    return Sampling(
        temperature=config.temperature,
        max_tokens=config.max_completion_length,
        stop_token_ids=tuple(stop_token_ids),
        top_p=generation.top_p,
        top_k=generation.top_k,
        min_p=generation.min_p,
        repetition_penalty=generation.repetition_penalty,
        stop_strings=(close,) if explains and generation.stop_at_tag else (),
    )


def server_pool(config: Config, requests_per_server: int = REQUESTS_PER_SERVER) -> VLLMPool:
    """Return the pool of the configured servers; their logs are known where launch.sh started them."""
    servers = config.generation.servers
    logs = [server_log_path(Path(config.output_dir), urlparse(a).port or 0) for a in servers]
    return VLLMPool(
        servers,
        timeout=config.generation.request_timeout,
        key=find_key(config.generation.api_key_file),
        log_paths=[path if path.is_file() else None for path in logs],
        requests_per_server=requests_per_server,
        requests_setting=requests_setting(config),
    )


def requests_setting(config: Config) -> str | None:
    """Return the setting from which a stage takes its requests at once; None where they are a constant."""
    names = ("collect.requests_per_server", "evaluate.requests_per_server")
    return next((name for name in names if stage_of(config).reads(name)), None)


def are_loading() -> bool:
    """Whether the servers have been started just before us."""
    return LOADING_VARIABLE in os.environ


def _check_one(pool: VLLMPool, config: Config, server: VLLMServer) -> None:
    """Raise GenerationError unless a server answers, with the configured model and room enough."""
    pool.check_one(server, config.model_name_or_path, sequence_length(config))
    logger.info("%s", health(server))
    if not config.generation.allow_open_servers:
        check_door(server)


def check_servers(pool: VLLMPool, config: Config, *, logprobs: bool = True) -> None:
    """Raise GenerationError unless every server answers, with the configured model and room enough.

    Servers that the launcher has just started are waited for: all where `logprobs`, their log-probabilities,
    will be read; else the first, and each of the others is asked as soon as it is there.
    """
    assert config.model_name_or_path is not None
    if are_loading() and not logprobs:
        pool.join_when_ready(partial(_check_one, pool, config), config.generation.startup_timeout)
        return
    if are_loading():  # the launcher watches over their start, and logs how far they are
        pool.wait_until_back(config.model_name_or_path, config.generation.startup_timeout, quietly=True)
    pool.show_health()
    if not config.generation.allow_open_servers:
        pool.check_doors()
    try:
        pool.check(config.model_name_or_path, sequence_length(config), logprobs=logprobs)
    except GenerationError as error:
        raise GenerationError(
            f"{error}; `generation.servers` has to name running servers: remove it and start "
            "through launch.sh, which starts them"
        ) from error
