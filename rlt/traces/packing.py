"""What packing rows into whole sequences, and padding them in batches, would come to. Pure.

Packed rows share a sequence, so a batch of as many sequences holds several times as many rows, and an epoch
has as many times fewer steps: another recipe. Padding computes the same with some of the work for nothing;
with one row in a forward pass, as in the published recipes, there is none. Several share it by their length
(rlt/trainers/sft.py).
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence


def num_packed(lengths: Sequence[int], capacity: int) -> int:
    """Return the sequences of `capacity` tokens that hold all rows, whole: longest first, where it fits best.

    That is TRL's packing strategy `bfd`; rows over the capacity are cut to it.
    """
    room: list[int] = []  # left in each sequence, ascending
    for length in sorted((min(length, capacity) for length in lengths), reverse=True):
        place = bisect_left(room, length)
        left = room.pop(place) if place < len(room) else capacity
        insort(room, left - length)
    return len(room)


STEP = 12
"""Rows of an optimizer step on one process: the published student's 96 on 8 GPUs."""


def padding_share(lengths: Sequence[int], rows: int, *, seed: int = 0) -> float:
    """Return the share of padding among all tokens of forward passes of `rows` rows each.

    Rows come in random order; those of one step of STEP rows share passes by their length.
    """
    order = list(lengths)
    random.Random(seed).shuffle(order)
    steps = [sorted(order[i : i + STEP], reverse=True) for i in range(0, len(order), STEP)]
    passes = [step[i : i + rows] for step in steps for i in range(0, len(step), rows)]
    return 1 - sum(order) / sum(len(part) * part[0] for part in passes)
