"""In which order a training takes its rows: in each epoch a permutation of the dataset, by seed and epoch.

The permutation is over all rows of the dataset, and those that were skipped (bad, too long, in a benchmark)
are skipped in it. So all others keep their places, as in the original, which leaves
nothing out. transformers' sampler and TRL's shuffle the rows that are left: one row less, and every problem
of a run would be another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler


@dataclass(frozen=True)
class Places:
    """Where the rows of a training are in their dataset."""

    of_rows: Sequence[int]
    """The place of each row, counted from 0."""
    total: int
    """Rows of the dataset."""

    def shuffled(self, seed: int) -> list[int]:
        """Return the rows, as indices of `of_rows`, in the order that a seed gives the whole dataset."""
        generator = torch.Generator().manual_seed(seed)
        rows = {place: row for row, place in enumerate(self.of_rows)}
        order = torch.randperm(self.total, generator=generator).tolist()
        return [rows[place] for place in order if place in rows]


def all_of(num_rows: int) -> Places:
    """Return the places of a dataset of which no row was skipped."""
    return Places(range(num_rows), num_rows)


class RowSampler(Sampler[int]):
    """Yields each row of an epoch once: for fine-tuning, in place of transformers' `RandomSampler`.

    `epoch` is its number; a sampler that only counts on would repeat the first after a resume.
    """

    def __init__(self, places: Places, seed: int, epoch: Callable[[], int]) -> None:
        self._places = places
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._places.of_rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.of_epoch(self._epoch()))

    def of_epoch(self, epoch: int) -> list[int]:
        """Return all rows in an epoch's order."""
        return self._places.shuffled(self._seed + epoch)


class GroupSampler(Sampler[int]):
    """Yields rows in groups and as often as TRL's `RepeatSampler` does, in this module's order."""

    def __init__(self, sampler: RepeatSampler, places: Places, epoch: Callable[[], int]) -> None:
        self._sampler = sampler
        self._rows = RowSampler(places, sampler.seed or 0, epoch) if sampler.shuffle else None
        self._sampler.shuffle = False

    def __len__(self) -> int:
        return len(self._sampler)

    def batch(self, number: int) -> list[int]:
        """Return the rows of one generation, of all processes; 0 is the first of the first epoch."""
        taken = self._sampler.batch_size
        epoch, place = divmod(number, self._sampler.num_samples // taken)
        rows = range(self._sampler.num_samples) if self._rows is None else self._rows.of_epoch(epoch)
        members = rows[place * taken : (place + 1) * taken]
        return [row for row in members for _ in range(self._sampler.mini_repeat_count)]

    def __iter__(self) -> Iterator[int]:
        if self._rows is None:
            return iter(self._sampler)
        rows = list(self._rows)
        return (rows[place] for place in self._sampler)
