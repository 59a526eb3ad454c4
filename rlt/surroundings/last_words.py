"""The end of a training that fails in all processes: the first one has more to do than the others.

It writes the run's record and report and says the reason. torchrun ends every process as soon as one has
failed, so one that is quicker would cut it off.
"""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

from rlt.surroundings.world import World

_WITHIN = 30.0
"""Seconds. It may be that this process alone has failed, and the first one waits for it."""


def let_first_end(world: World, limit: float = _WITHIN) -> None:
    """Return once the first process of this machine has ended, or `limit` seconds later.

    Returns at once in that process, and where no agent such as torchrun has started both.
    """
    if world.local_rank and world.has_agent:
        siblings = psutil.Process(os.getppid()).children()
        with suppress(KeyboardInterrupt):  # Ctrl-C ends the waiting: the reason has been given
            psutil.wait_procs([process for process in siblings if _is_first(process)], timeout=limit)


def _is_first(process: psutil.Process) -> bool:
    try:
        return process.environ().get("LOCAL_RANK") == "0"
    except psutil.Error:  # it has ended
        return False
