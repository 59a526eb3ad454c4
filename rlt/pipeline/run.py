"""Run stages one after the other, each by its own launcher in a process of its own; nothing is loaded here.

A step that is still valid is skipped, one that was interrupted continues, and one whose settings, inputs or
code have changed runs again; what it made before is kept beside it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rlt.config.overrides import read
from rlt.config.schema import Config
from rlt.errors import Paused, RLTError
from rlt.io import set_aside, write_json
from rlt.launch.command import PROJECT
from rlt.launch.forked import ForkedStage, load_libraries
from rlt.launch.signals import Stopped, stop_on_signals
from rlt.launch.training import TrainingProcess
from rlt.pipeline.decide import Decision, decide
from rlt.pipeline.plan import PlannedStep, make_plan
from rlt.rundir.run_record import NAME as RUN_FILE
from rlt.rundir.run_record import command_line, only_run_in, read_run
from rlt.text import duration, markdown, timestamp

logger = logging.getLogger(__name__)

NAME = "pipeline.json"
_GRACE = 120.0
"""Seconds that a launcher gets to end its servers and its training."""
_ERROR = "error: "
"""What the launchers' one sentence begins with."""


@dataclass
class Outcome:
    """What became of a step."""

    name: str
    stage: str
    directory: str
    command: str
    status: str = "waiting"
    """waiting, running, skipped, finished, failed or interrupted."""
    why: str | None = None
    """Why it ran, or did not."""
    seconds: float | None = None
    exit_code: int | None = None
    error: str | None = None


def run(config: Config, words: Sequence[str], *, dry_run: bool = False) -> None:
    """Run the steps that have to; `words` are what was typed, for the folders of run files.

    Raises RLTError before anything runs for a step that cannot, and after the step that failed.
    """
    dirs = read(words).config_dirs
    plan = make_plan(config, dirs)
    ignore_code, fork = config.pipeline.ignore_code, config.pipeline.fork
    if dry_run:
        sys.stdout.write(describe(plan, ignore_code=ignore_code))
        return
    output = Path(config.output_dir)
    with only_run_in(output):
        pipeline = Pipeline(plan, output, ignore_code=ignore_code, fork=fork)
        stop_on_signals()
        try:
            pipeline.run()
        except Stopped as stopped:
            raise SystemExit(128 + stopped.number) from None
        finally:
            sys.stdout.write(pipeline.table())
            sys.stdout.flush()


class Pipeline:
    """The steps on their way; pipeline.json says at any time how far they are."""

    def __init__(
        self, plan: Sequence[PlannedStep], output: Path, *, ignore_code: bool, fork: bool = False
    ) -> None:
        self._plan = plan
        self._fork = fork
        self._output = output
        self._ignore_code = ignore_code
        self._started = timestamp()
        self.outcomes = [
            Outcome(step.name, step.config.stage, str(step.directory), step.command) for step in plan
        ]

    def run(self) -> None:
        """Run every step that has to; raises RLTError at the first that fails."""
        if self._fork:
            load_libraries()
        for number, (planned, outcome) in enumerate(zip(self._plan, self.outcomes, strict=True), start=1):
            decision = decide(planned, ignore_code=self._ignore_code)
            logger.info("[%d/%d] %s %s", number, len(self._plan), planned.name, decision.text)
            outcome.why = decision.why
            if not decision.runs:
                outcome.status = "skipped"
                self._write("running")
                continue
            clock = time.monotonic()
            outcome.status = "running"
            self._write("running")
            try:
                outcome.exit_code = self._run_step(planned, decision)
                outcome.status = "failed" if outcome.exit_code else "finished"
            except Stopped:
                outcome.status = "interrupted"
                raise
            except BaseException:
                outcome.status = "failed"
                raise
            finally:
                outcome.seconds = round(time.monotonic() - clock, 1)
                outcome.error = (
                    _error_of(planned.directory, self._log(planned)) if outcome.status != "finished" else None
                )
                self._write({"finished": "running"}.get(outcome.status, outcome.status))
            if outcome.exit_code == Paused.exit_code:
                raise Paused(f"step `{planned.name}`: {outcome.error}")
            if outcome.exit_code:
                reason = f" ({outcome.error})" if outcome.error else ""
                raise RLTError(
                    f"step `{planned.name}` ended with exit code {outcome.exit_code}{reason}; its log is "
                    f"{self._log(planned)}, and the same command continues from there"
                )
        self._write("finished")

    def table(self) -> str:
        """Return what became of each step, as Markdown."""
        rows = [["step", "stage", "status", "time", "directory"]]
        for outcome in self.outcomes:
            spent = "" if outcome.seconds is None else duration(outcome.seconds)
            rows.append([outcome.name, outcome.stage, outcome.status, spent, outcome.directory])
        return markdown(rows)

    def _run_step(self, planned: PlannedStep, decision: Decision) -> int:
        """Return the exit code of the step's launcher, which is ended with us."""
        if decision.aside:
            with only_run_in(planned.directory):
                place = set_aside(planned.directory)
            logger.info("what %s held is kept as %s", planned.directory, place)
        words = [*planned.words, *(["resume_from=latest"] if decision.from_checkpoint else [])]
        logger.info("$ %s", planned.command + " resume_from=latest" * decision.from_checkpoint)
        process = self._start(words, self._log(planned))
        signal.signal(signal.SIGUSR1, lambda *_: os.kill(process.pid, signal.SIGUSR1))
        try:
            while (code := process.poll()) is None:
                time.sleep(0.1)
            process.drain()
            return code
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # of a process that has ended
            if process.poll() is None:
                logger.warning("ending step %s …", planned.name)
                process.stop(_GRACE)

    def _start(self, words: Sequence[str], log: Path) -> TrainingProcess | ForkedStage:
        if self._fork:
            return ForkedStage(words, log)
        return TrainingProcess([str(PROJECT / words[0]), *words[1:]], {}, log)

    def _log(self, planned: PlannedStep) -> Path:
        return self._output / "logs" / f"{planned.name}.log"

    def _write(self, status: str) -> None:
        record = {
            "status": status,
            "started": self._started,
            "ended": None if status == "running" else timestamp(),
            "command": command_line(),
            "steps": [asdict(outcome) for outcome in self.outcomes],
        }
        write_json(self._output / NAME, record)


def describe(plan: Sequence[PlannedStep], *, ignore_code: bool) -> str:
    """Return what would be done about each step, and its command."""
    lines: list[str] = []
    pending: list[str] = []
    for number, planned in enumerate(plan, start=1):
        waits = [name for name in planned.step.references if name in pending]
        if waits and (planned.directory / RUN_FILE).exists():
            text = f"depends on what {' and '.join(waits)} will have written"
            pending.append(planned.name)
        else:
            decision = decide(planned, ignore_code=ignore_code)
            text = decision.text
            if decision.runs:
                pending.append(planned.name)
        lines += [f"# [{number}/{len(plan)}] {planned.name} {text}", planned.command]
    return "\n".join(lines) + "\n"


def _error_of(directory: Path, log: Path) -> str | None:
    """Return what went wrong: as run.json says, or the launcher, which may have refused before that."""
    recorded = read_run(directory).get("error") if (directory / RUN_FILE).exists() else None
    if recorded or not log.is_file():
        return recorded
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return errors[-1] if errors else None
