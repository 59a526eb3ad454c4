"""Why a program failed, as its log says it: the error at the root, which others follow, with what helps.

vLLM's engine logs the cause dozens of lines above the end of a log; what follows is the clean-up and the
errors of the processes that wait for it. Read are tracebacks, and lines that call themselves an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlt.generation.log_remedies import remedy_of
from rlt.text import without_colour

LOG_LINES = 15
_LOG_BYTES = 1 << 20
_LENGTH = 300
"""Characters of a quoted message: vLLM lists its 300 architectures in one."""
_KILLED = 137
"""The exit code after SIGKILL, as a shell shows it."""
_ROUTINE = re.compile(
    r'HTTP/1\.\d" [24]\d\d |Avg prompt throughput'
    r"|^nanobind: |^ - (leaked|\.\.\. skipped)|refleaks\.html|resource_tracker"  # after the real last words
)
_PROCESS = re.compile(r"^\((?P<name>\w+) pid=\d+\) ")
_LEVEL = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.,]+ \[[^]]*\] ?")
_RANK = re.compile(r"^\[(?:rank|default)\d+\]:(?:\[rank\d+\]:)? ?")
"""Put by torch before the lines of one of several processes."""
_TRACEBACK = "Traceback (most recent call last):"
_LINKS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_FINAL = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?::|$)|^[\w.]+(?:Error|Exception|Interrupt|Exit|Warning)\b")
"""The line that ends a traceback: the name of the exception, and what it says."""
_SENTENCE = re.compile(r"^(?:\S+: )?error(?: \(process \d+ on \S+\))?: |^(?=Fatal Python error: )")
"""The line in which a program, argparse and ours among them, says its error without a traceback."""
_FOLLOWS = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered an issue|died unexpectedly"
    r"|WorkerProc initialization failed|Worker failed with error|Failed core proc|ChildFailedError"
    r"|CancelledError|KeyboardInterrupt|SystemExit|engine loop has died|Executor failed|BrokenPipeError"
    r"|resource_tracker|output_handler failed|RuntimeError: cancelled"
)
"""Errors of those that wait for another process."""
_ENDED = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered an issue|died unexpectedly"
    r"|WorkerProc initialization failed|Failed core proc|engine loop has died|Fatal Python error"
)
"""What a server's log says when its engine has ended."""


@dataclass(frozen=True)
class Reason:
    """An error in a log."""

    text: str
    """The exception's last line, without the prefixes of the log."""
    line: int
    """Its line number, counted from 1."""
    remedy: str | None
    """What to do about it; None where it is not one of those that are known."""


@dataclass
class _Error:
    text: str
    line: int
    is_sentence: bool = False
    """A line at the level of errors, which says less than a traceback or a program's own last sentence."""
    chain: list[_Error] = field(default_factory=list)
    """The errors that led to it in the same traceback, the first one first."""


def quote_log(path: Path, lines: int = LOG_LINES) -> str:
    """Return the rest of a message about a failure: the reason in a log and its remedy.

    If the log has none, its last lines.
    """
    reason = find_reason(_read(path))
    if reason is None:
        return f"\nlast lines of {path}:\n{log_tail(path, lines)}"
    remedy = f"; {reason.remedy}" if reason.remedy else ""
    return f": {reason.text}{remedy} (line {reason.line} of {path})"


def quote_running(path: Path, lines: int = LOG_LINES) -> str:
    """Return `quote_log` for a server whose log says that its engine has ended, else the last lines.

    A server that continues logs errors of single requests, which are no reason for what happens later.
    """
    if _ENDED.search(_read(path)):
        return quote_log(path, lines)
    return f"\nlast lines of {path}:\n{log_tail(path, lines)}"


def quote_end(path: Path, code: int, lines: int = LOG_LINES) -> str:
    """Return `quote_log` of a program that has ended; one that was killed says nothing of it itself."""
    if code == _KILLED:
        return f" (killed); {remedy_of('SIGKILL')}; its log is {path}"
    return quote_log(path, lines)


def log_tail(path: Path, lines: int = LOG_LINES) -> str:
    """Return the last lines of a log file, without colours, blank lines, routine lines and progress bars."""
    text = _read(path)
    if not text:
        return _unreadable(path) or ""
    kept = [line.rstrip() for _, line in _lines(text) if line.strip() and not _ROUTINE.search(line)]
    return "\n".join(kept[-lines:])


def find_reason(log: str) -> Reason | None:
    """Return the error at the root of the last failure in a log; None if there is none."""
    found = list(_errors(_of_last_start(_lines(log))))
    roots = [error for error in found if not _FOLLOWS.search(error.text)]
    causes = [error for error in roots if not error.is_sentence] or roots
    if not causes:  # all that is known is that another process has ended
        known = ((error, remedy_of(error.text)) for error in found)
        return next((Reason(_short(e.text), e.line, remedy) for e, remedy in known if remedy), None)
    last = causes[-1]
    # Of an exception and those that led to it, which one names the cause is known of the known ones alone.
    for error in (last, *reversed(last.chain)):
        if remedy := remedy_of(error.text):
            return Reason(_short(error.text), _first(found, error), remedy)
    return Reason(_short(last.text), _first(found, last), None)


def _read(path: Path) -> str:
    """Return the end of a log; without a cut first line. Empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - _LOG_BYTES)
            skipped = file.read(start).count(b"\n")
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n" * skipped + without_colour(text)  # so that lines keep their numbers


def _unreadable(path: Path) -> str | None:
    try:
        path.open("rb").close()
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
    return None


def _lines(text: str) -> list[tuple[int, str]]:
    """Return number and text of each line as a terminal would show it: a bar writes over itself."""
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return [(number, line) for number, line in enumerate(shown, start=1)]


def _of_last_start(lines: Sequence[tuple[int, str]]) -> Sequence[tuple[int, str]]:
    """Return the lines after the last command; the launcher writes each one before it starts it."""
    starts = [place for place, (_, line) in enumerate(lines) if line.startswith("$ ")]
    return lines[starts[-1] + 1 :] if starts else lines


def _errors(lines: Sequence[tuple[int, str]]) -> Iterator[_Error]:
    """Yield every error in its order, those that led to another one in its chain."""
    chain: list[_Error] = []
    waiting: _Error | None = None
    """A traceback's error of which it is not yet known whether it led to another one."""
    for kind, error in _marks(lines):
        if kind == "link" and waiting:
            chain, waiting = [*chain, waiting], None
        elif kind in ("begin", "sentence") and waiting:
            yield waiting
            chain, waiting = [], None
        if kind == "final" and error:
            error.chain, waiting = chain, error
        elif error:
            yield error
    if waiting:
        yield waiting


def _marks(lines: Sequence[tuple[int, str]]) -> Iterator[tuple[str, _Error | None]]:
    """Yield what is in a log: where tracebacks begin and end, what links them, and single sentences."""
    in_traceback = ignored = False
    for place, (number, line) in enumerate(lines):
        text, level = _bare(line)
        if text.startswith("Exception ignored in"):
            ignored = True
        elif text in _LINKS:
            yield "link", None
        elif text == _TRACEBACK:
            in_traceback = True
            yield "begin", None
        elif in_traceback and _FINAL.match(text):
            if not ignored:
                yield "final", _Error(_whole(text, lines[place + 1 : place + 12]), number)
            in_traceback = ignored = False
        elif not in_traceback and _SENTENCE.match(text):
            yield "sentence", _Error(_SENTENCE.sub("", text, count=1), number)
        elif not in_traceback and level == "ERROR" and _is_sentence(text):
            yield "sentence", _Error(text, number, is_sentence=True)


def _bare(line: str) -> tuple[str, str | None]:
    """Return a line without process, level, time and place, and its level."""
    text = _PROCESS.sub("", _RANK.sub("", line), count=1)
    level = _LEVEL.match(text)
    return (text[level.end() :] if level else text).rstrip(), level and level["level"]


def _is_sentence(text: str) -> bool:
    """Whether a line at the level of errors says one, and is none of a traceback's lines."""
    return bool(text) and not text[0].isspace() and not _FINAL.match(text) and "Traceback" not in text


def _whole(text: str, after: Sequence[tuple[int, str]]) -> str:
    """Return an exception with the sentence that pydantic writes below it."""
    if "validation error" not in text:
        return text
    detail = next((t for _, line in after if (t := _bare(line)[0].strip()).startswith("Value error, ")), None)
    return text if detail is None else detail.removeprefix("Value error, ")


def _first(errors: Sequence[_Error], error: _Error) -> int:
    """Return the first line about an error; a process logs it, prints it, and its parent again."""
    everything = [one for other in errors for one in (*other.chain, other)]
    return min([one.line for one in everything if one.text == error.text], default=error.line)


def _short(text: str) -> str:
    text = " ".join(text.partition(" [type=")[0].split()).rstrip(".")
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH].rstrip()} …"
