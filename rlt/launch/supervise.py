"""Watching over a training and its servers until the training's end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rlt.errors import GenerationError
from rlt.launch.server import ServerProcess
from rlt.launch.training import TrainingProcess

logger = logging.getLogger(__name__)


def supervise(
    training: TrainingProcess,
    servers: list[ServerProcess],
    *,
    restarts: int,
    together: bool,
    restarted: Callable[[], None],
) -> int:
    """Return the training's exit code.

    Servers that end before it are replaced in the list by new ones, all of them if they depend on each other
    (`together`), and `restarted` is called. After `restarts` times, raise GenerationError with the last words
    of the next.
    """
    while (code := training.poll()) is None:
        if any(server.poll() is not None for server in servers):
            restart(servers, restarts, together=together)
            restarts -= 1
            restarted()
        time.sleep(0.2)
    training.drain()
    return code


def restart(servers: list[ServerProcess], restarts: int, *, together: bool) -> None:
    """Replace the servers that have ended by new ones; raise GenerationError when no restart is left."""
    ended = [server for server in servers if server.poll() is not None]
    try:
        ended[0].check()
    except GenerationError as error:
        if restarts < 1:
            raise
        logger.warning("%s\nstarting it again (generation.max_restarts)", error)
    for index, server in enumerate(servers):
        if together or server in ended:
            server.child.stop()  # what it may have left behind holds its memory
            servers[index] = ServerProcess(server.plan)
