"""The processes of a training meet before torch is loaded, with a line about it and a limit.

torch waits for all of them too, but without a word, and names none that is missing.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from contextlib import ExitStack, suppress

from rlt.errors import ConfigError, MachineLost
from rlt.surroundings.waiting import Wait
from rlt.surroundings.world import World

logger = logging.getLogger(__name__)

LIMIT = 600.0
"""Seconds in which all processes have to come; a queue may start them one after the other."""
_HERE = b"RLT process here"
_GO = b"RLT all are here"
_RANK = struct.Struct("!ii")
_AGENT_WITHIN = 30.0
_BACKLOG = 4096


def meet_processes(world: World, limit: float = LIMIT) -> None:
    """Return once all processes are there; raises ConfigError or MachineLost after `limit` seconds."""
    if world.size == 1 and not world.has_agent:
        return
    where = f"{world.address}:{world.port}"
    if world.has_agent:
        _require_agent(world, where, min(limit, _AGENT_WITHIN))
        return
    logger.warning(
        "process %d of %d (%s): waiting for %s at %s, at most %.0f s",
        *(world.rank, world.size, world.by),
        *("the others" if world.rank == 0 else "process 0", where, limit),
    )
    (_gather if world.rank == 0 else _join)(world, where, limit)


def _require_agent(world: World, where: str, limit: float) -> None:
    """Raise ConfigError where torchrun, which outlives its processes, is not there."""
    numbers, wait = (world.rank, world.size), Wait(limit, every=1.0)
    while True:
        try:
            socket.create_connection((world.address, world.port), timeout=5.0).close()
            logger.info("process %d of %d, which torchrun has started; they meet at %s", *numbers, where)
            return
        except OSError as error:
            reason = error.strerror or str(error)
        if wait.is_over or world.address in ("127.0.0.1", "localhost", "::1"):
            raise ConfigError(
                f"RANK={world.rank} and WORLD_SIZE={world.size} name a torchrun at {where}, and none is "
                f"there ({reason}): its variables are left over in this environment. `unset RANK LOCAL_RANK "
                "WORLD_SIZE MASTER_ADDR MASTER_PORT` for one process alone, or use ./launch.sh."
            )
        wait.pause()


def _gather(world: World, where: str, limit: float) -> None:
    """Let the others in, tell them when all are there, and leave the port to torch."""
    waiting = _Waiting(limit, where)
    here: dict[int, socket.socket] = {}
    with ExitStack() as stack:
        server = stack.enter_context(_listen(world, where))
        stack.callback(lambda: [connection.close() for connection in here.values()])
        server.settimeout(0.5)
        while len(here) < world.size - 1:
            with suppress(OSError):  # nobody yet, or somebody who has gone again
                connection, _ = server.accept()
                connection.settimeout(2.0)
                size, rank = _RANK.unpack(_receive(connection, len(_HERE) + _RANK.size)[len(_HERE) :])
                if size != world.size or not 0 < rank < world.size or rank in here:
                    connection.close()
                    raise ConfigError(
                        f"process {rank} of {size} has come to {where}, where process 0 of {world.size} "
                        "waits for each of the others once: another run uses this MASTER_PORT, or two "
                        "processes have the same RANK."
                    )
                here[rank] = connection
            missing = [str(rank) for rank in range(1, world.size) if rank not in here]
            named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            waiting.go_on(f"process {named} of {world.size}")
        server.close()
        for connection in here.values():
            with suppress(OSError):
                connection.sendall(_GO)


def _join(world: World, where: str, limit: float) -> None:
    waiting = _Waiting(limit, where)
    while True:
        with suppress(OSError), socket.create_connection((world.address, world.port), 5.0) as connection:
            connection.sendall(_HERE + _RANK.pack(world.size, world.rank))
            connection.settimeout(1.0)
            while True:
                try:
                    if _receive(connection, len(_GO)) == _GO:
                        return
                    break
                except TimeoutError:
                    waiting.go_on("all processes")
        waiting.go_on("process 0")
        waiting.pause("process 0")


def _receive(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes; raises OSError where they do not come."""
    found = connection.recv(count, socket.MSG_WAITALL)
    if len(found) < count or not found.startswith((_HERE, _GO)):
        raise ConnectionError("another program")
    return found


def _listen(world: World, where: str) -> socket.socket:
    try:
        # On all addresses, as torch does: this machine's name may lead to loopback here.
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        return socket.create_server(
            ("", world.port),
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=family is socket.AF_INET6,
        )
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(
            f"the processes of this training would meet at {where}, but port {world.port} {reason}: give all "
            "of them another MASTER_PORT."
        ) from None


class _Waiting(Wait):
    """Says now and then what is waited for, and ends the wait."""

    def __init__(self, limit: float, where: str) -> None:
        def say(what: str, seconds: float) -> None:
            logger.warning("waiting for %s at %s for %.0f s", what, where, seconds)

        super().__init__(limit, every=0.5, say=say, say_every=60.0)
        self._where = where

    def go_on(self, what: str) -> None:
        """Raise MachineLost when it has taken too long."""
        if self.is_over:
            raise MachineLost(
                f"{what} did not come to {self._where} within {self._limit:.0f} s: start all of them, and "
                "see that this port can be reached; or unset RANK, LOCAL_RANK and WORLD_SIZE for one process "
                "alone; ./launch.sh starts all processes itself."
            )
        self.say_so(what)
