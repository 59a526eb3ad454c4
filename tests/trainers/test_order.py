"""The order of rows: the numbers of the original's dataset, and that a row less changes no other's place."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from trl.trainer.utils import RepeatSampler

from rlt.trainers.order import GroupSampler, Places, RowSampler, all_of

STRATOS, SEED = 16_710, 42
FIRST = [15972, 8445, 2050]
"""As the original draws them."""


def groups(places: Places, *, num_steps: int = 3, epoch: int = 0) -> list[list[int]]:
    """Return the dataset's places of the 16 problems of each step, drawn as teacher_rl draws them."""
    rows = range(len(places.of_rows))
    sampler = RepeatSampler(rows, mini_repeat_count=64, batch_size=16, repeat_count=1, seed=SEED)
    drawn = list(islice(GroupSampler(sampler, places, lambda: epoch), num_steps * 16 * 64))
    assert all(drawn[i : i + 64] == [drawn[i]] * 64 for i in range(0, len(drawn), 64))
    problems = [places.of_rows[row] for row in drawn[::64]]
    return [problems[i : i + 16] for i in range(0, len(problems), 16)]


def test_the_first_steps_have_the_originals_problems():
    steps = groups(all_of(STRATOS))
    assert steps[0][:3] == FIRST
    permutation = torch.randperm(STRATOS, generator=torch.Generator().manual_seed(SEED)).tolist()
    assert [place for step in steps for place in step] == permutation[:48]


@pytest.mark.parametrize("dropped", [{8445}, {0}, {15972, 2050}, set(range(1000, 9000))])
def test_all_others_keep_their_places(dropped: set[int]):
    """Over the 16,709 rows that are left the first ones would be others: 11985, 12696, 12543 and so on."""
    left = [place for place in range(STRATOS) if place not in dropped]
    whole = [place for step in groups(all_of(STRATOS), num_steps=1000) for place in step]
    kept = [place for step in groups(Places(left, STRATOS)) for place in step]
    assert kept == [place for place in whole if place not in dropped][:48]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_fine_tuning_takes_the_order_of_accelerate(epoch: int):
    """That of the original's libraries, 1.4.0: a seed for each epoch."""
    theirs = SeedableRandomSampler(range(STRATOS), data_seed=SEED)
    theirs.generator = torch.Generator()
    theirs.set_epoch(epoch)
    ours = RowSampler(all_of(STRATOS), SEED, lambda: epoch)
    assert list(ours) == list(theirs)
    assert len(ours) == STRATOS
    left = Places([place for place in range(STRATOS) if place != FIRST[1]], STRATOS)
    places = [left.of_rows[row] for row in RowSampler(left, SEED, lambda: epoch)]
    assert places == [place for place in list(ours) if place != FIRST[1]]


def test_an_unshuffled_run_stays_in_the_order_of_its_rows():
    sampler = RepeatSampler(range(4), mini_repeat_count=2, batch_size=2, shuffle=False)
    assert list(GroupSampler(sampler, Places([0, 2, 3, 5], 6), lambda: 0)) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_problems_of_a_step_are_known_beforehand(shuffle: bool):
    """Those that the dataloader takes: three steps an epoch of 7 rows in pairs, each taken twice."""
    epochs = []
    for epoch in (0, 1, 2):
        sampler = RepeatSampler(range(7), mini_repeat_count=3, batch_size=2, repeat_count=2, shuffle=shuffle)
        order = GroupSampler(sampler, Places([0, 1, 2, 4, 5, 6, 8], 9), lambda epoch=epoch: epoch)
        epochs += list(order)
    steps = [epochs[i : i + 6] for i in range(0, len(epochs), 12)]
    assert len(steps) == 9
    assert [order.batch(step) for step in range(9)] == steps
    assert (steps[:3] != steps[3:6]) == shuffle
