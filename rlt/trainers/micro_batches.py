"""The rows of an optimizer step in micro-batches as narrow as their own rows.

TRL pads the prompts and the completions of a whole generation batch to one width and slices rows, never
columns (trl#7179): every micro-batch is as wide as the longest completion of the batch. Here each one is cut
to its own longest row. Where the loss is a sum over rows, which all of them enter once, neither their order
nor the process that computes them matters, nor how many share a pass; then rows of like length share a
micro-batch, more of them where they are short, and processes that move in lockstep under ZeRO-3 work on like
lengths at the same time.

Shapes: B rows, P columns of prompts (padded on the left), C of completions (padded on the right).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Batch = dict[str, Tensor]
"""As TRL's trainer buffers it: tensors of B rows, and scalars that hold for all of them."""
_PROMPT = ("prompt_ids", "prompt_mask")
Size = tuple[int, int]
"""Tokens of a row's prompt and of its completion."""
_MAX_PADDING = 0.03
"""Of a pass, by its tokens, where passes are joined."""


@dataclass(frozen=True)
class Row:
    """One row without padding, on the CPU."""

    prompt: dict[str, Tensor]
    """Values of each token of the prompt."""
    completion: dict[str, Tensor]
    """Values of each token of the completion that the loss may count."""
    whole: dict[str, Tensor]
    """Values of the row, such as its advantage."""

    @property
    def size(self) -> Size:
        """Tokens of prompt and completion."""
        return len(self.prompt["prompt_ids"]), len(self.completion["completion_ids"])


def rows_of(batch: Batch) -> list[Row]:
    """Return the rows of a padded batch. A completion that is masked as a whole has no tokens.

    Each holds memory of its own: a view would travel to other processes with the whole batch.
    """
    width = batch["completion_ids"].size(1)
    by_row = {name: value.cpu() for name, value in batch.items() if value.dim() > 0}
    prompts = by_row["prompt_mask"].sum(1).tolist()
    completions = by_row["completion_mask"].sum(1).tolist()
    rows = []
    for i, (num_prompt, num_completion) in enumerate(zip(prompts, completions, strict=True)):
        row = Row({}, {}, {})
        for name, value in by_row.items():
            if name in _PROMPT:
                row.prompt[name] = value[i, value.size(1) - num_prompt :].clone()
            elif value.dim() == 2 and value.size(1) == width:
                row.completion[name] = value[i, :num_completion].clone()
            else:
                row.whole[name] = value[i].clone()
        rows.append(row)
    return rows


def micro_batch(rows: Sequence[Row], pad_token_id: int, device: torch.device) -> Batch:
    """Return rows as a batch that is as wide as they need; at least one column is the completions'."""
    batch: Batch = {}
    for name in rows[0].prompt:
        values = [row.prompt[name] for row in rows]
        batch[name] = _padded(values, pad_token_id if name == "prompt_ids" else 0, side="left")
    for name in rows[0].completion:
        values = [row.completion[name] for row in rows]
        batch[name] = _padded(values, pad_token_id if name == "completion_ids" else 0, side="right")
    for name in rows[0].whole:
        batch[name] = torch.stack([row.whole[name] for row in rows])
    return {name: value.to(device) for name, value in batch.items()}


def _padded(values: Sequence[Tensor], padding: int, side: str) -> Tensor:
    padded = pad_sequence(list(values), batch_first=True, padding_value=padding, padding_side=side)
    return padded if padded.size(1) else padded.new_full((len(values), 1), padding)


def deal(
    sizes: Sequence[Size], num_processes: int, per_pass: int, joined_tokens: int = 0
) -> list[list[list[int]]]:
    """Return, for each process, the rows of each of its passes: the longest rows in the first passes.

    The n-th passes of all processes hold neighbours in the order of length, so none waits for another, and as
    many rows, since TRL gathers metrics of each. The first pass has the longest rows, so what does not fit
    into memory fails at once. A pass has `per_pass` rows, or a multiple of them while it stays within
    `joined_tokens`, padding included, on every process. There are at least two if there were as many before.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sum(sizes[i]))  # stable: equal lengths keep their order
    passes = [order[i : i + per_pass] for i in range(0, len(order), per_pass)]
    dealt = [passes[process::num_processes] for process in range(num_processes)]
    joined: list[list[list[int]]] = []  # for each pass, the rows of every process
    for together in map(list, zip(*dealt, strict=True)):
        wider = [rows + more for rows, more in zip(joined[-1], together, strict=True)] if joined else []
        if len(joined) > 1 and all(_may_join([sizes[i] for i in rows], joined_tokens) for rows in wider):
            joined[-1] = wider
        else:
            joined.append(together)
    return [list(mine) for mine in zip(*joined, strict=True)]


def _may_join(sizes: Sequence[Size], most_tokens: int) -> bool:
    prompts, completions = zip(*sizes, strict=True)
    padded = len(sizes) * (max(prompts) + max(completions))
    return padded <= min(most_tokens, (1 + _MAX_PADDING) * (sum(prompts) + sum(completions)))
