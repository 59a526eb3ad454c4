"""Free TCP ports, chosen where nobody else picks."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from rlt.errors import ConfigError

# Below the range from which Linux and macOS give ports to outgoing connections: a port that is free now
# is not handed to somebody's client before its server binds it.
_LOW, _HIGH = 20000, 32000


def free_ports(count: int, host: str = "127.0.0.1", besides: Collection[int] = ()) -> list[int]:
    """Return distinct ports that could be bound a moment ago, at random so that two launchers rarely meet.

    Ports in `besides` are promised to somebody who has not bound them yet.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(_LOW, _HIGH), k=min(_HIGH - _LOW, 200 + 20 * count)):
        if len(found) == count:
            break
        if port not in besides and is_free(port, host):
            found.append(port)
    if len(found) < count:
        raise ConfigError(f"no {count} free ports between {_LOW} and {_HIGH} on {host}: end what holds them.")
    return found


def ports_from(base: int, count: int, host: str = "127.0.0.1") -> list[int]:
    """Return `count` ports from `base` on; raises ConfigError naming the first one that is taken."""
    ports = list(range(base, base + count))
    if ports[-1] > 65535:
        raise ConfigError(f"generation.base_port={base} leaves no room for {count} servers below port 65536.")
    for port in ports:
        if not is_free(port, host):
            raise ConfigError(
                f"port {port} on {host} is taken: change generation.base_port, or set it to 0 for free ports."
            )
    return ports


def is_free(port: int, host: str) -> bool:
    """Return whether the port can be bound on the host's address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers set this too; without it a port in TIME_WAIT would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
