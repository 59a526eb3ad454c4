"""What every grading process does: reads a JSON list of texts a line, writes true or false.

Computer algebra of text that a model wrote may run for ever inside one C call, which no signal handler and
no thread can end. Here the kernel ends the process when a line takes more CPU time than allowed.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence

MEMORY = 4 * 2**30
"""Bytes of address space: an answer such as 9^9^9^9 must not fill the machine."""


def answer_lines(grade: Callable[..., bool], seconds: float, first: Sequence[str]) -> None:
    """Answer line by line until the input ends, each within `seconds` of CPU time.

    `first` is graded before: imports and compiled patterns are not on any answer's time.
    """
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A library that prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    grade(*first)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = bool(grade(*json.loads(line)))
        except Exception:
            # Whatever a hostile text provokes in the parser or in sympy, it is not a right answer.
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(verdict) + "\n")
        answers.flush()
