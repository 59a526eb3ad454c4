"""Whether a step has to run: what its directory holds, and how that differs from what the step would make."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.pipeline.identity import changes
from rlt.pipeline.plan import PlannedStep
from rlt.rundir.run_record import NAME, read_run

_WHOLE_CHECKPOINT = "checkpoint-*/trainer_state.json"
"""Trainer writes this file last."""


@dataclass(frozen=True)
class Decision:
    """What is to be done about a step."""

    runs: bool
    why: str
    aside: bool = False
    """What is in its directory belongs to something else, and is kept under another name."""
    from_checkpoint: bool = False

    @property
    def text(self) -> str:
        """The decision with its reason, in a few words."""
        if not self.runs:
            return f"skipped: {self.why}"
        if self.aside:
            return f"runs again: {self.why}"
        return (
            f"continues from its last checkpoint: {self.why}" if self.from_checkpoint else f"runs: {self.why}"
        )


def decide(planned: PlannedStep, *, ignore_code: bool) -> Decision:
    """Return what is to be done about a step, all that it reads being there.

    A finished step stays valid while nothing that shaped it has changed. One that failed or was ended
    continues although the code is another one: that may be what fixes it.
    """
    directory = planned.directory
    if not (directory / NAME).exists():
        return Decision(True, "it has not run yet")
    run = read_run(directory)
    status = run["status"]
    is_finished = status == "finished"
    changed = changes(directory, run, planned.config, ignore_code=ignore_code or not is_finished)
    if is_finished and not changed:
        changed = [f"{path} is missing" for path in planned.needed if not path.exists()]
    if changed:
        return Decision(True, "; ".join(changed), aside=True)
    if is_finished:
        return Decision(False, f"finished {run['ended']}, and nothing has changed since")
    why = f"the last run is {status}" + (f" ({run['error']})" if run.get("error") else "")
    return Decision(True, why, from_checkpoint=any(directory.glob(_WHOLE_CHECKPOINT)))
