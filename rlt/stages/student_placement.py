"""The frozen student where the configuration puts it: in this process, or behind its own servers."""

from __future__ import annotations

from accelerate import Accelerator

from rlt.config.schema import Config
from rlt.config.server_key import find_key
from rlt.generation.server_logprobs import ServerLogprobs
from rlt.models.frozen import load_frozen
from rlt.models.load import load_context
from rlt.models.logprobs import LogprobModel
from rlt.stages.common import is_main_process


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
