"""Warnings about a running training: each is logged once, not at every step."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


class Alarms:
    """Says a warning when a value passes its limit, and again only after the value was well back.

    Well back is half of an upper limit, or twice a lower one: a value that wavers about its limit is
    announced once.
    """

    def __init__(self, *, speaks: bool) -> None:
        """Only a process that `speaks` logs; all of them keep `raised`, the names of the warnings so far."""
        self._speaks = speaks
        self.raised: set[str] = set()

    def over(self, name: str, value: float, limit: float, warning: str) -> None:
        """Warn when the value is over the limit; a NaN is."""
        self._watch(name, not value <= limit, value <= limit / 2, warning)

    def under(self, name: str, value: float, limit: float, warning: str) -> None:
        """Warn when the value is under the limit; a NaN is."""
        self._watch(name, not value >= limit, value >= limit * 2, warning)

    def say(self, warning: str) -> None:
        """Log a warning where this process speaks."""
        if self._speaks:
            logger.warning("%s", warning)

    def _watch(self, name: str, is_bad: bool, is_well_back: bool, warning: str) -> None:
        if is_bad and name not in self.raised:
            self.raised.add(name)
            self.say(warning)
        elif is_well_back:
            self.raised.discard(name)
