"""Watching over a training and its servers until the training's end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from rlt.errors import GenerationError
from rlt.launch.health import HealthWatch, MotionWatch
from rlt.launch.server import ServerProcess
from rlt.launch.training import TrainingProcess
from rlt.surroundings.waiting import wait_until

logger = logging.getLogger(__name__)
_EVERY = 0.2


@dataclass(frozen=True)
class Limits:
    """How much is borne."""

    restarts: int
    """Times that servers which have ended are replaced."""
    together: bool
    """All of them are, since they depend on each other."""
    silence: float
    """Seconds without an answer after which a server is ended; 0: never."""
    patience: float
    """Seconds that the training gets to notice a loss for good, save and end."""


def supervise(
    training: TrainingProcess,
    servers: list[ServerProcess],
    limits: Limits,
    *,
    motion: MotionWatch,
    restarted: Callable[[], None],
) -> int:
    """Return the training's exit code.

    Servers that end before it are replaced in the list by new ones, and `restarted` is called. When none may
    be replaced any more, GenerationError is raised with the last words of one, after the training has ended.
    Raises TrainingStuck as `motion` does.
    """
    restarts = limits.restarts
    with HealthWatch(servers, limits.silence) as health:
        while (code := training.poll()) is None:
            health.end_silent()
            motion.check()
            if any(server.poll() is not None for server in servers):
                try:
                    restart(servers, restarts, together=limits.together)
                except GenerationError:
                    _let_it_save(training, limits.patience)
                    raise
                health.forget()
                restarts -= 1
                restarted()
            time.sleep(_EVERY)
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


def _let_it_save(training: TrainingProcess, patience: float) -> None:
    """Wait for the end of a training that has lost its servers: at its next request it saves and ends."""
    if not patience:
        return
    logger.warning(
        "a server is lost: waiting for the training to save its last step and end, at most %.0f s; Ctrl-C "
        "ends it now",
        patience,
    )
    wait_until(lambda: training.poll() is not None, patience, every=_EVERY)
    training.drain()
