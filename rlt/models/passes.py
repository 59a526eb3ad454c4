"""Which rows share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_PADDING = 0.1
"""Share of a batch that may be padding."""
BUSY_TOKENS = 2048
"""What keeps a device busy: a batch of fewer tokens is not cut for the sake of padding."""


def joined_tokens(most: int) -> int:
    """Return the tokens, padding included, up to which passes of the update are joined.

    `most` is what a single one may have.
    """
    return min(BUSY_TOKENS, most)


def split_runs(lengths: Sequence[int], runs: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Return indices grouped as by `split_batches`, each run of consecutive ones apart.

    The largest batches come first, so that processes which run them in step work on like ones.
    """
    assert sum(runs) == len(lengths), "each is of one run"
    batches, start = [], 0
    for count in runs:
        batches += [
            [start + i for i in batch] for batch in split_batches(lengths[start:][:count], tokens_per_batch)
        ]
        start += count
    return sorted(batches, key=lambda batch: -len(batch) * lengths[batch[0]])


def split_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Return indices grouped so that rows x longest row stays within the budget, longest rows first.

    A row longer than the budget gets a batch of its own. A batch also ends where more than a tenth of it
    would be padding, once it is large enough to keep a device busy.
    """
    batches: list[list[int]] = []
    num_tokens = 0  # of the last batch, without padding
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches:
            longest, rows = lengths[batches[-1][0]], len(batches[-1])
            padded = (rows + 1) * longest
            wastes = num_tokens + lengths[index] < (1 - _MAX_PADDING) * padded
            if padded <= tokens_per_batch and not (wastes and rows * longest >= BUSY_TOKENS):
                batches[-1].append(index)
                num_tokens += lengths[index]
                continue
        batches.append([index])
        num_tokens = lengths[index]
    return batches
