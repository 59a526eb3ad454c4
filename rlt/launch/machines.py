"""A run on several machines: accelerate's options for it, and what such a run cannot have.

Every machine gets the same command but for its rank. All of them see the same run directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from rlt.config.schema import Config, stage_of
from rlt.config.server_key import is_loopback
from rlt.errors import ConfigError

DEFAULT_PORT = 29500
"""accelerate's."""
_OPTIONS = ("--num_machines", "--machine_rank", "--main_process_ip", "--main_process_port")


@dataclass(frozen=True)
class Machines:
    """How many machines train together, and which of them this one is."""

    count: int = 1
    rank: int = 0
    ip: str = ""
    """Of machine 0, as all others reach it; empty on one machine."""
    port: int = DEFAULT_PORT
    """Of machine 0, where the trainings meet; the launchers meet at the next one."""

    @property
    def is_first(self) -> bool:
        """Whether this machine holds the run directory."""
        return self.rank == 0

    def __str__(self) -> str:
        """Return `machine 0 of 2`."""
        return f"machine {self.rank} of {self.count}"


ALONE = Machines()
"""One machine."""


def take_options(words: Sequence[str]) -> tuple[Machines, list[str]]:
    """Return the machines in the options, and the other words; raises ConfigError."""
    given: dict[str, str] = {}
    rest: list[str] = []
    left = iter(words)
    for word in left:
        name, has_value, value = word.partition("=")
        option = "--" + name[2:].replace("-", "_")
        if not name.startswith("--") or option not in _OPTIONS:
            rest.append(word)
            continue
        value = value if has_value else next(left, "")
        if not value or value.startswith("--"):
            raise ConfigError(f"{option} needs a value, as in {_EXAMPLE}.")
        given[option] = value
    count = _number(given, "--num_machines", 1, low=1)
    if "--num_machines" not in given and given:
        raise ConfigError(f"{next(iter(given))} goes with --num_machines, as in {_EXAMPLE}.")
    rank = _number(given, "--machine_rank", 0 if count == 1 else None, low=0, high=count - 1)
    ip = given.get("--main_process_ip", "")
    port = _number(given, "--main_process_port", DEFAULT_PORT, low=1, high=65534)
    if count == 1:
        return ALONE, rest
    if not ip:
        raise ConfigError(
            f"--num_machines {count} needs --main_process_ip HOST, the address at which all reach machine 0."
        )
    return Machines(count, rank, ip, port), rest


def check_machines(script: str, machines: Machines, config: Config, *, needs_servers: bool) -> None:
    """Raise ConfigError for a run that several machines cannot share."""
    if machines.count == 1:
        return
    if not stage_of(config).trains:
        raise ConfigError(
            f"--num_machines {machines.count} is for training, and {config.stage} trains nothing: run it on "
            "one machine, where generation.servers=[ADDRESS,…] may name servers on others."
        )
    if script == "launch_with_server.sh" or needs_servers:
        raise ConfigError(
            f"{script} starts no servers with --num_machines {machines.count}: start them on "
            "further ones with `python -m rlt.launch.serve RUN_FILE generation.host=0.0.0.0 "
            "generation.api_key_file=FILE`, and use launch.sh with "
            "generation.servers=[http://HOST:PORT,…] generation.api_key_file=FILE."
        )
    for name, addresses in (
        ("reward.servers", config.reward.servers),
        ("reward.answers.servers", config.reward.answers.servers),
    ):
        for address in addresses:
            if is_loopback(urlsplit(address).hostname):
                raise ConfigError(
                    f"`{name}` names {address}, which is another server on each of {machines.count} machines"
                    ": give an address that all of them reach."
                )


_EXAMPLE = "--num_machines 2 --machine_rank 0 --main_process_ip HOST"


def _number(
    given: dict[str, str], option: str, default: int | None, *, low: int, high: int | None = None
) -> int:
    text = given.get(option)
    if text is None and default is not None:
        return default
    bounds = f"from {low} on" if high is None else f"from {low} to {high}"
    if text is None or not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
        got = "nothing" if text is None else f"'{text}'"
        raise ConfigError(f"{option} must be a number {bounds}, got {got}, as in {_EXAMPLE}.")
    return int(text)
