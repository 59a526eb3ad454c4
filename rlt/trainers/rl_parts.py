"""What an RL trainer needs besides TRL's arguments: its settings and its problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from rlt.config.schema import MonitorSettings
from rlt.rundir.samples import SampleRow
from rlt.trainers.engine import Engine
from rlt.trainers.first_check_verdict import FirstCheck
from rlt.trainers.order import Places, all_of
from rlt.trainers.prompted import PromptedProblem

if TYPE_CHECKING:
    from rlt.trainers.rl import RLTrainer

SampleSink = Callable[[str, list[SampleRow]], None]
"""Takes the name of a table (`step_000001`) and its rows; called on the main process."""


@dataclass(frozen=True)
class RLSettings:
    """What the trainer needs besides TRL's arguments."""

    ref_sync_steps: int
    ref_mixup: float
    drift_limit: float
    """Warn above this mean |policy - sampled|; infinite where the two are not meant to agree."""
    drift_error: float | None
    """Stop above this maximum, where the reward reads the sampled log-probabilities."""
    mask_truncated: bool
    """Completions that were cut by their length get no loss."""
    tokens_per_pass: int
    """Tokens of a forward pass without gradients; one row may be longer."""
    joined_tokens: int
    """Tokens up to which passes of the update with short rows are joined."""
    rows_per_pass: int
    """Rows that fit into such a pass at their limits."""
    come_one_by_one: bool
    """A step's rows come from servers, so that each may be read when it is there."""
    max_staleness: int
    """Updates that completions may be older than the policy that learns from them; 0 or 1."""
    eval_num_generations: int
    monitors: MonitorSettings


@dataclass(frozen=True)
class RLData:
    """Problems to train on, and held-out ones to evaluate on (may be empty)."""

    train: Sequence[PromptedProblem]
    held_out: Sequence[PromptedProblem]
    train_places: Places | None = None
    """Of `train` in its dataset; None: it is all of it."""

    @property
    def places(self) -> Places:
        """Where the problems to train on are in their dataset."""
        return self.train_places or all_of(len(self.train))


@dataclass(frozen=True)
class RLParts:
    """What the trainer is given from outside; the engine needs its model to be made."""

    make_engine: Callable[[RLTrainer[Any]], Engine]
    write_samples: SampleSink
    first_check: FirstCheck | None = None
    """None: engine and policy are not compared before the first step."""


def indexed(problems: Sequence[PromptedProblem]) -> Dataset:
    """Return rows as TRL wants them, with a `prompt`; problem and ids are looked up by `index`."""
    return Dataset.from_dict({"prompt": [""] * len(problems), "index": list(range(len(problems)))})
