"""Progress of training: a bar on a terminal, one line per logging step elsewhere; the format of all logging.

Both replace transformers' own callbacks, which write whole dicts; `install_progress(trainer)` does that.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging
from typing_extensions import override

from rlt.rundir.line import metrics_text, times_text
from rlt.text import duration

log = logging.getLogger(__name__)


def is_terminal() -> bool:
    """Return whether a person sees both streams, so that a bar can be drawn."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def install_progress(trainer: Trainer) -> None:
    """Replace the trainer's progress callbacks with ours: a bar on a terminal, lines elsewhere."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(BarProgress() if is_terminal() else ConsoleProgress())


class ConsoleProgress(TrainerCallback):
    """One line through `logging` for each logging step and each evaluation, on the main process."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock that seconds per step and the remaining time come from."""
        self._began = (time.monotonic(), state.global_step)

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line."""
        if state.is_world_process_zero and logs and (text := self.line(state, logs)):
            log.info("%s", text)

    def line(self, state: TrainerState, logs: dict[str, Any]) -> str:
        """Return the line for one dict of metrics; empty when it has nothing that the line shows."""
        is_eval = any(key.startswith("eval_") for key in logs)
        metrics = metrics_text(logs, "eval_" if is_eval else "")
        if not metrics:
            return ""
        pieces = [f"step {state.global_step}/{state.max_steps}", "evaluation" if is_eval else "", metrics]
        if not is_eval:
            pieces += [times_text(logs), self._pace(state)]
        return "  ".join(piece for piece in pieces if piece)

    def _pace(self, state: TrainerState) -> str:
        if self._began is None or state.global_step <= self._began[1]:
            return ""
        per_step = (time.monotonic() - self._began[0]) / (state.global_step - self._began[1])
        left = per_step * max(state.max_steps - state.global_step, 0)
        return f"{per_step:.3g} s/step  {duration(left)} left"


class BarProgress(ProgressCallback):
    """transformers' bar, with our one line above it in place of a dict."""

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line above the bar."""
        bar = self.training_bar if state.is_world_process_zero else None
        if bar is not None and logs and (text := ConsoleProgress().line(state, logs)):
            bar.write(text)


class TokenProgress:
    """Lines that say how far a job is, with the time left by the tokens that are done, not by the rows."""

    def __init__(self, total_tokens: int, what: str, *, every: float = 10.0) -> None:
        """Start the clock; `every` is the least number of seconds between two lines."""
        self._total = total_tokens
        self._what = what
        self._every = every
        self._done = 0
        self._began = self._spoke = time.monotonic()

    def add(self, tokens: int) -> None:
        """Count tokens that are done, and write a line if it is time, or the last one."""
        self._done += tokens
        now = time.monotonic()
        if now - self._spoke >= self._every or self._done >= self._total:
            self._spoke = now
            log.info("%s", self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """Return the line after so many seconds."""
        share = self._done / max(self._total, 1)
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        pace = f"{rate:,.0f} tokens/s  {duration(left)} left" if self._done else "time left not known yet"
        return f"{self._what}  {share:.0%}  {self._done:,} of {self._total:,} tokens  {pace}"


class SampleProgress:
    """Lines that say how far a collection of samples is, and what is wrong with them.

    The time left goes by tokens: what is not done yet of a task will be as long as what is, on average. It is
    not shown before as many are done as are drawn at once, and some of every task: the first to end are the
    shortest, and another task's may be ten times as long.
    """

    def __init__(
        self,
        done: Iterable[Mapping[str, Any]],
        total: int | Mapping[str, int],
        at_once: int,
        *,
        what: str = "collecting",
        noun: str = "explanations",
        note: Callable[[], str] = str,
        every: float = 10.0,
    ) -> None:
        """Start the clock; `every` is the least number of seconds between two lines, `note` ends each.

        `total` is by task where the samples have several.
        """
        self._what, self._noun, self._note = what, noun, note
        self._of_task = {"": total} if isinstance(total, int) else dict(total)
        self._total = sum(self._of_task.values())
        self._at_once = at_once
        self._every = every
        self._malformed = self._truncated = 0
        self._lengths: dict[str, list[int]] = {task: [] for task in self._of_task}
        self._count(done)
        self._before = self._done
        self._tokens = 0
        self._began = self._spoke = time.monotonic()

    def add(self, rows: Iterable[Mapping[str, Any]], tokens: int) -> None:
        """Count samples with their `num_tokens`; write a line if it is time, or the last one."""
        self._count(rows)
        self._tokens += tokens
        now = time.monotonic()
        if now - self._spoke >= self._every or self._done >= self._total:
            self._spoke = now
            log.info("%s", self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """Return the line after so many seconds."""
        rate = self._tokens / max(seconds, 1e-9)
        tokens = self._tokens_left() if self._done - self._before >= self._at_once else None
        left = duration(tokens / rate) if tokens is not None and rate else "?"
        share = self._done / max(self._total, 1)
        return (
            f"{self._what}  {share:.0%}  {self._done:,} of {self._total:,} {self._noun}"
            f"  {rate:,.0f} tokens/s  {left} left"
            f"  {self._malformed:,} malformed, {self._truncated:,} cut by their length" + self._note()
        )

    @property
    def _done(self) -> int:
        return sum(map(len, self._lengths.values()))

    def _tokens_left(self) -> float | None:
        """Return the tokens of the samples that are not done; None where a task has none that is."""
        left = 0.0
        for task, total in self._of_task.items():
            lengths = self._lengths[task]
            if total > len(lengths):
                if not lengths:
                    return None
                left += (total - len(lengths)) * fmean(lengths)
        return left

    def _count(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._lengths[row.get("task", "")].append(row["num_tokens"])
            self._malformed += row["why"] is not None
            self._truncated += row["finish_reason"] == "length"


def setup_logging(rank: int = 0) -> None:
    """Give all processes one log format on stderr: rank 0 from INFO, others from WARNING with their rank.

    Libraries log from WARNING; without a terminal the bars of datasets, transformers and the Hub are off.
    """
    who = "" if rank == 0 else f" [rank {rank}]"
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname).1s{who} %(name)s: %(message)s", "%H:%M:%S")
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, logging.StreamHandler) and not isinstance(old, logging.FileHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("rlt").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    if rank:
        os.environ.setdefault(
            "TRANSFORMERS_VERBOSITY", "error"
        )  # the same warning from every rank helps nobody
    # torch warns of its own renamed collectives at every call that DeepSpeed makes.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    if not is_terminal():
        _quiet_bars()


def _quiet_bars() -> None:
    transformers_logging.disable_progress_bar()
    for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")  # for a library that is yet to be imported
    if datasets := sys.modules.get("datasets"):
        datasets.disable_progress_bars()
    if hub := sys.modules.get("huggingface_hub.utils"):
        hub.disable_progress_bars()
