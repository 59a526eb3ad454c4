"""The rules of servers: their addresses, and the processes that ask them."""

from __future__ import annotations

from urllib.parse import urlsplit

from rlt.config.schema import Config
from rlt.errors import ConfigError


def check_generation(config: Config) -> None:
    generation = config.generation
    if any(arg.split("=")[0].replace("_", "-") == "--api-key" for arg in generation.server_args):
        raise ConfigError(
            "`generation.server_args` must not hold --api-key, because the configuration is saved with the "
            "run: set the environment variable VLLM_API_KEY, or give generation.api_key_file."
        )
    check_addresses("generation.servers", generation.servers)


def check_servers(config: Config, *, servers_follow: bool) -> None:
    generation = config.generation
    if generation.backend == "vllm" and not generation.servers and not servers_follow:
        raise ConfigError(
            "`generation.backend=vllm` needs running servers: start through ./launch.sh, give "
            "generation.servers=[http://HOST:PORT], or take generation.backend=transformers."
        )


def check_one_process(config: Config, num_processes: int) -> None:
    if config.generation.backend == "vllm" and num_processes > 1:
        raise ConfigError(
            f"{config.stage} asks its servers from one process, got {num_processes}: start it with "
            "launch.sh or python train.py."
        )


def check_addresses(name: str, addresses: list[str]) -> None:
    for address in addresses:
        _check_address(name, address)
        if addresses.count(address) > 1:
            raise ConfigError(
                f"`{name}` names {address} twice, but each server is sent its own share of the work: name it "
                "once."
            )


def _check_address(name: str, address: str) -> None:
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number up to 65535
        is_good = False
    if not is_good or any(c.isspace() for c in address):
        raise ConfigError(f"`{name}` must hold addresses like http://127.0.0.1:8000, got '{address}'.")
    if "@" in address:
        raise ConfigError(
            f"`{name}` must hold no name and password, because the configuration is saved with the run: set "
            "the environment variable VLLM_API_KEY, or give generation.api_key_file."
        )
