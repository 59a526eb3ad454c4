"""Waiting for something that is looked for again and again: with a limit, pauses, and a word now and then.

Time is that of `running()`: a process that was suspended continues with what was left of its limits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rlt.surroundings.clock import running

SAY_EVERY = 15.0
"""Seconds between two words about a wait."""


class Wait:
    """One wait, from its making on.

    Example: `wait = Wait(60.0, say=lambda what, s: log.info("waiting for %s for %.0f s", what, s))`, then
    `while not is_there():` with `if wait.is_over: raise …` and `wait.pause("the server")` in it.
    """

    def __init__(
        self,
        limit: float = math.inf,
        *,
        every: float = 0.1,
        say: Callable[[str, float], object] | None = None,
        say_every: float = SAY_EVERY,
    ) -> None:
        """`every` is the pause between two looks; `say` gets what is waited for and the seconds so far."""
        self._limit = limit
        self._every = every
        self._say = say
        self._say_every = say_every
        self._start = self._reported = running()

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return running() - self._start

    @property
    def is_over(self) -> bool:
        """Whether it has lasted longer than its limit."""
        return self.seconds > self._limit

    def say_so(self, what: str = "") -> None:
        """Report how long it has lasted, if that was not reported lately."""
        now = running()
        if self._say is not None and now - self._reported > self._say_every:
            self._reported = now
            self._say(what, now - self._start)

    def pause(self, what: str = "") -> None:
        """Wait until the next look."""
        self.say_so(what)
        time.sleep(self._every)


def wait_until(is_true: Callable[[], bool], limit: float, *, every: float = 0.1) -> None:
    """Return when it is true, or after `limit` seconds."""
    wait = Wait(limit, every=every)
    while not is_true() and not wait.is_over:
        wait.pause()
