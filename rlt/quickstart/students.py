"""What the teachers' traces are worth: students trained on them answer the held-out problems.

One student learns from the teacher before RL, one from the teacher after it, with the same problems and the
same budget; the base that both start from answers too. All is read from the runs of
`cfgs/run_cfg/quickstart_students.yaml`, so it can be compared again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlt.evaluation.intervals import Interval, paired_share_interval, share_interval
from rlt.evaluation.paired import Shares
from rlt.evaluation.runs import read_shares
from rlt.quickstart.report import percent, percent_interval
from rlt.text import markdown

AFTER = "taught after RL"
STUDENTS = {
    "base": "answers_base",
    "taught before RL": "answers_before_rl",
    AFTER: "answers_after_rl",
}
"""Name in the table -> the pipeline's step in which this student answers."""


@dataclass(frozen=True)
class Students:
    """How often each student is right, and how far ahead the RL teacher's one is."""

    accuracy: dict[str, Interval]
    """By name; each problem counts with its share of right answers."""
    lead: dict[str, Interval]
    """Of the student taught after RL over each other one, paired by problem."""

    @property
    def is_real(self) -> bool:
        """The RL teacher's student is ahead of every other one, by more than noise."""
        return all(interval.low > 0 for interval in self.lead.values())


def read_students(directory: Path) -> Students:
    """Return the comparison, read from the pipeline's directory."""
    return compare_students({name: right_by_problem(directory / step) for name, step in STUDENTS.items()})


def compare_students(shares: Mapping[str, Shares]) -> Students:
    """Return the comparison of students, given by name."""
    return Students(
        {name: share_interval(list(share.values())) for name, share in shares.items()},
        {
            name: paired_share_interval(share, shares[AFTER])
            for name, share in shares.items()
            if name != AFTER
        },
    )


def right_by_problem(run: Path) -> Shares:
    """Return each problem's share of right answers in an evaluation of one task."""
    return next(iter(read_shares(run).values()))


def students_table(students: Students) -> str:
    """Return the comparison as a markdown table."""
    lines = [("student", "right answers [95 % interval]", f"lead of the one {AFTER}")]
    for name, accuracy in students.accuracy.items():
        share = f"{percent(accuracy.mean)} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"
        lead = students.lead.get(name)
        lines.append((name, share, percent_interval(lead) if lead else ""))
    return markdown(lines).rstrip()


def students_summary(students: Students) -> str:
    """Return one sentence: whether the RL teacher's student is the better one."""
    leads = " and ".join(f"{percent_interval(lead)} over {name}" for name, lead in students.lead.items())
    lead = f"the student {AFTER} leads by {leads} (paired by problem)"
    if students.is_real:
        return f"The RL teacher's student is better: {lead}."
    return f"A better student is NOT shown: {lead}; both intervals need to lie above 0."
