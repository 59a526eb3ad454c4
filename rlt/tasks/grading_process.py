"""The child process of `MathGrader`: reads [answer, reference] lines, writes true or false.

Computer algebra of text that a model wrote may run for ever inside one C call, which no signal handler and
no thread can end. Here the kernel ends the process when a pair takes more CPU time than allowed.

Run as `python -m rlt.tasks.grading_process SECONDS`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys

MEMORY = 4 * 2**30
"""Bytes of address space: an answer such as 9^9^9^9 must not fill the machine."""
_DELIMITERS = ("$", r"\(", r"\[", r"\boxed")
_NO_LIMIT = 0  # math-verify's own could not end a C call
_FINAL = "####"


def is_correct(answer: str, reference: str) -> bool:
    """Whether an answer says the same as a reference, by math-verify."""
    from math_verify import parse, verify

    gold, given = (parse(as_math(text), parsing_timeout=_NO_LIMIT) for text in (reference, answer))
    return verify(gold, given, timeout_seconds=_NO_LIMIT)


def as_math(text: str) -> str:
    """Return a text in which math-verify finds all of the answer.

    Outside of math delimiters it reads numbers only. A formula without words becomes one between dollars.
    What follows a `####` is the answer, as GSM8K writes it.
    """
    text = text.rpartition(_FINAL)[2].strip()
    has_words = re.search(r"[^\W\d_]{2,}", re.sub(r"\\[A-Za-z]+", "", text))
    if has_words or "\n" in text or any(d in text for d in _DELIMITERS):
        return text
    return f"${text}$"


def main() -> None:
    """Answer line by line until the input ends."""
    seconds = float(sys.argv[1])
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A library that prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    is_correct("1", "1")  # imports and compiled patterns are not on any answer's time
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = is_correct(*json.loads(line))
        except Exception:
            # Whatever a hostile text provokes in the parser or in sympy, it is not a right answer.
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(verdict) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
