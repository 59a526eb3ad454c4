"""The quickstart over several seeds, paired by seed: does RL make teacher and student better, or was it luck?

    python -m rlt.quickstart.claim --seeds 5 --output results/claim

A seed that has a result is not run again, so an interrupted claim continues where it stopped. Writes
`claim.md` and `claim.json`. Each seed has a world, a base model and samples of its own.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from rlt.errors import ConfigError, RLTError
from rlt.evaluation.intervals import Interval, mean_interval, paired_interval
from rlt.io import write_json, write_text
from rlt.parser import Parser
from rlt.quickstart.report import RESULT, Change, change_cells, percent, percent_interval
from rlt.quickstart.stages import interrupt_on_sigterm, run_to_end
from rlt.quickstart.students import AFTER, Students
from rlt.reporting.progress import setup_logging
from rlt.surroundings.leaving import run_command
from rlt.text import markdown

logger = logging.getLogger("rlt.quickstart.claim")  # __name__ is __main__ when it is run

SEED_TIMEOUT = 2 * 3600.0
_OVER_SEEDS = ("reward", "r_SS", "r_KL", "closes its tag", "good explanations")


@dataclass(frozen=True)
class SeedResult:
    """What one seed's quickstart.json says."""

    seed: int
    is_real: bool
    changes: dict[str, Change]
    students: Students


def run_claim(output: Path, seeds: Sequence[int], words: Sequence[str]) -> tuple[list[SeedResult], list[int]]:
    """Return the results of all seeds, and the seeds that failed; `words` go to each quickstart."""
    results, failed = [], []
    for number, seed in enumerate(seeds, start=1):
        path = output / f"seed_{seed}" / RESULT
        if path.is_file():
            logger.info("seed %d (%d of %d): has a result already", seed, number, len(seeds))
        elif not _run_seed(output, seed, words, f"{number} of {len(seeds)}"):
            failed.append(seed)
            continue
        results.append(read_result(path, seed))
    return results, failed


def read_result(path: Path, seed: int) -> SeedResult:
    """Return a seed's result from its quickstart.json."""
    values = json.loads(path.read_text())
    changes = {
        name: Change(change["before"], change["after"], Interval(**change["difference"]))
        for name, change in values["teacher"]["changes"].items()
    }
    accuracy, lead = (
        {name: Interval(**interval) for name, interval in values["students"][part].items()}
        for part in ("accuracy", "lead")
    )
    return SeedResult(seed, values["is_real"], changes, Students(accuracy, lead))


def over_seeds(results: Sequence[SeedResult]) -> dict[str, Change]:
    """Return each measure's mean over seeds before and after, and the change paired by seed."""
    changes = {}
    for name in _OVER_SEEDS:
        pairs = [result.changes[name] for result in results]
        differences = mean_interval([pair.after - pair.before for pair in pairs])
        changes[name] = Change(
            fmean(pair.before for pair in pairs), fmean(pair.after for pair in pairs), differences
        )
    return changes


def students_over_seeds(results: Sequence[SeedResult]) -> Students:
    """Return the students' mean accuracy over seeds, and the lead paired by seed.

    The seeds are the units, and an accuracy is a mean over many problems: Student's intervals.
    """
    by_student: dict[str, dict[str, float]] = {}
    for result in results:
        for name, accuracy in result.students.accuracy.items():
            by_student.setdefault(name, {})[str(result.seed)] = accuracy.mean
    lead = {name: paired_interval(of, by_student[AFTER]) for name, of in by_student.items() if name != AFTER}
    return Students({name: mean_interval(list(of.values())) for name, of in by_student.items()}, lead)


def claim_text(results: Sequence[SeedResult]) -> str:
    """Return the claim as markdown: a line a seed, then the change over seeds and one sentence."""
    students = list(results[0].students.accuracy)
    head = (
        "tag closed",
        "r_SS before",
        "r_SS after",
        "change, paired by problem",
        "good before",
        "good after",
    )
    lines: list[tuple[str, ...]] = [("seed", *head)]
    answers: list[tuple[str, ...]] = [
        ("seed", *students, *(f"lead over {name}" for name in students if name != AFTER))
    ]
    for result in results:
        r_ss, good = result.changes["r_SS"], result.changes["good explanations"]
        closed = percent(result.changes["closes its tag"].before)
        scores = (f"{r_ss.before:+.3f}", f"{r_ss.after:+.3f}", str(r_ss.difference))
        lines.append((str(result.seed), closed, *scores, percent(good.before), percent(good.after)))
        answers.append(_student_cells(str(result.seed), result.students))
    if len(results) > 1:
        answers.append(_student_cells("mean", students_over_seeds(results)))
    blocks = [markdown(lines).rstrip()]
    if len(results) > 1:
        totals = [("mean over seeds", "before RL", "after RL", "change, paired by seed [95 % interval]")]
        totals += [change_cells(name, change) for name, change in over_seeds(results).items()]
        blocks.append(markdown(totals).rstrip())
    blocks.append(markdown(answers).rstrip())
    real = sum(result.is_real for result in results)
    blocks.append(
        f"In {real} of {len(results)} seeds the warm-up teacher closed its tag in at least 95 % of its "
        "explanations, held-out r_SS rose, and the student of the teacher after RL was ahead of both others, "
        "each with a paired 95 % interval above 0."
    )
    return "\n\n".join(blocks) + "\n"


def main(words: Sequence[str]) -> int:
    """Run the claim as the command line says; return 0 only if every seed shows the improvement."""
    parser = Parser(prog="python -m rlt claim", description="The quickstart over several seeds.")
    parser.add_argument("--output", type=Path, default=Path("results/claim"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 on")
    parser.add_argument("--backend", choices=("auto", "vllm", "transformers"), default="auto")
    typed = parser.parse_args(words)
    if typed.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1 (the number of seeds, from 0 on), got {typed.seeds}.")
    setup_logging()
    interrupt_on_sigterm()
    results, failed = run_claim(typed.output, range(typed.seeds), ["--backend", typed.backend])
    if not results:
        raise RLTError(f"no seed has a result; their logs are {typed.output}/seed_*.log")
    text = claim_text(results)
    if failed:
        text += f"\nFailed, and not counted above: seeds {', '.join(map(str, failed))}.\n"
    write_text(typed.output / "claim.md", text)
    values = {"seeds": [asdict(result) for result in results], "failed": failed}
    if len(results) > 1:
        values["over_seeds"] = {name: asdict(change) for name, change in over_seeds(results).items()}
        values["students_over_seeds"] = asdict(students_over_seeds(results))
    write_json(typed.output / "claim.json", values)
    sys.stdout.write(f"\n{text}")
    return 0 if not failed and all(result.is_real for result in results) else 1


def _student_cells(first: str, students: Students) -> tuple[str, ...]:
    shares = (percent(accuracy.mean) for accuracy in students.accuracy.values())
    return (first, *shares, *map(percent_interval, students.lead.values()))


def _run_seed(output: Path, seed: int, words: Sequence[str], place: str) -> bool:
    """Run one seed's quickstart in a process of its own; return whether it has a result."""
    output.mkdir(parents=True, exist_ok=True)
    log_path = output / f"seed_{seed}.log"
    command = [sys.executable, "-m", "rlt.quickstart", "--output", str(output), "--seed", str(seed), *words]
    logger.info("seed %d (%s): running, its log is %s", seed, place, log_path)
    start = time.monotonic()
    with log_path.open("wb") as log:
        code = run_to_end(command, SEED_TIMEOUT, output=log)
    took = time.monotonic() - start
    if (output / f"seed_{seed}" / RESULT).is_file():  # whatever it shows
        logger.info("seed %d: done in %.0f s", seed, took)
        return True
    logger.warning("seed %d: failed (exit code %s) after %.0f s; see %s", seed, code, took, log_path)
    return False


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
