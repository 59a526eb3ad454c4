"""Signals to a launcher: those that end it, and those that ask its run to save and leave."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from types import FrameType

from rlt.rundir.stop_file import ask_to_stop

logger = logging.getLogger(__name__)


class Stopped(BaseException):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop_on_signals() -> None:
    """Make Ctrl-C, SIGTERM and SIGHUP raise Stopped, once: a second one must not break the clean-up."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asks to live on
        numbers.append(signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    handler: Callable[[int, FrameType | None], None] = stop
    for number in numbers:
        signal.signal(number, handler)


def save_on_signals(directory: str, *, sigterm: bool) -> None:
    """Make SIGUSR1, with `sigterm` the first SIGTERM too, ask the run in a directory to save and leave."""
    end_at_once = signal.getsignal(signal.SIGTERM)

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is Python's
        name = signal.Signals(number).name
        signal.signal(signal.SIGTERM, end_at_once)
        try:
            ask_to_stop(directory)
        except OSError as error:
            logger.error("%s: the run cannot be asked to save (%s); SIGTERM ends it at once", name, error)
        else:
            logger.warning("%s: saving a checkpoint after this step, then ending", name)

    signal.signal(signal.SIGUSR1, ask)
    if sigterm:
        signal.signal(signal.SIGTERM, ask)
