"""The key that vLLM servers demand: where it is read from, and when it is needed. No config holds it."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from rlt.config.schema import Config, stage_of
from rlt.config.tree import get
from rlt.errors import ConfigError

VARIABLE = "VLLM_API_KEY"
"""The environment variable with the key; vLLM reads it too, for the paths that its own guard knows."""
_SHORTEST = 16
_GIVE = f"generation.api_key_file=FILE, or the environment variable {VARIABLE}"


def find_key(file: str | None, *, own: bool = True) -> str | None:
    """Return the key in the file, or without one that of the environment; None where there is none.

    Raises ConfigError for a file that others can read, and for a key that no header can carry; where it is
    our `own` and guards our servers, also for one that can be guessed.
    """
    shortest = _SHORTEST if own else 1
    if file is None:
        key = os.environ.get(VARIABLE)
        return _checked(key, f"the environment variable {VARIABLE}", shortest) if key else None
    try:
        with Path(file).open(encoding="utf-8") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(
                    f"`generation.api_key_file={file}` can be read by others (mode {mode:03o}): chmod 600 it."
                )
            return _checked(opened.read().strip(), f"`generation.api_key_file={file}`", shortest)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(
            f"`generation.api_key_file={file}` cannot be read ({reason}): give a file with one key."
        ) from None


def _checked(key: str, where: str, shortest: int) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where} must hold one word of ASCII: `openssl rand -hex 32` makes a key.")
    if len(key) < shortest:
        raise ConfigError(
            f"{where} holds a key of {len(key)} characters, which can be guessed: take at least {_SHORTEST}, "
            "e.g. of `openssl rand -hex 32`."
        )
    return key


def is_loopback(host: str | None) -> bool:
    """Return whether only this machine reaches a host. A name other than localhost may lead anywhere."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def beyond_this_machine(address: str) -> bool:
    """Return whether an address like http://10.0.0.2:8000 can be reached from other machines."""
    return not is_loopback(urlsplit(address).hostname)


_NAME_SERVERS = ("generation.servers", "reward.servers", "reward.answers.servers")


def check_server_key(config: Config) -> None:
    """Raise ConfigError for a key that cannot be used, and for servers beyond this machine without one."""
    generation = config.generation
    stage = stage_of(config)
    own = (
        not stage.reads("generation.api") or generation.api == "vllm"
    )  # access control of third-party servers is out of scope
    if find_key(generation.api_key_file, own=own) or generation.allow_open_servers or not own:
        return
    for name in filter(stage.reads, _NAME_SERVERS):
        for address in filter(beyond_this_machine, get(config, name)):
            raise ConfigError(
                f"`{name}` names {address}, which other machines reach, and there is no key, so any "
                f"client could run code there: start it with a key and give {_GIVE}, or set "
                "generation.allow_open_servers=true on a network that you trust."
            )


def refuse_open_host(host: str, key: str | None, *, allowed: bool) -> None:
    """Raise ConfigError when a server would listen beyond this machine without a key or leave to do so."""
    if not (key or allowed or is_loopback(host)):
        raise ConfigError(
            f"generation.host={host} can be reached from other machines, and there is no key, so any "
            f"client could run code there: give {_GIVE}, keep 127.0.0.1, or set "
            "generation.allow_open_servers=true on a network that you trust."
        )
