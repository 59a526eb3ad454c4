"""The reference solution behind a student's own thought, for a loss that teaches it to answer from there.

A teacher that knows the solution judges a student's thought and nothing around it (rlt/formats/place.py).
What the student makes of its thought, and the tags it puts around it, would stay as they are, or drift.

C tokens of a completion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlt.formats.layout import StudentLayout
from rlt.formats.place import Thought
from rlt.records import Problem


@dataclass(frozen=True)
class Taught:
    """A completion whose answer is the reference solution, where it has a thought that ends."""

    ids: list[int]
    num_own: int
    """The first ones, which the student has sampled."""
    is_around_C: Tensor
    """Which tokens are not the thought's, (C,); none of a completion that is left as it was."""


class TaughtAnswers:
    """Puts the solution, as the layout writes one, behind the thoughts of completions."""

    def __init__(
        self,
        layout: StudentLayout,
        find: Callable[[Sequence[int]], Thought | None],
        *,
        coefficient: float,
        max_tokens: int,
    ) -> None:
        """`coefficient` weights the loss of a token; completions longer than `max_tokens` are not made."""
        self.coefficient = coefficient
        self._layout = layout
        self._find = find
        self._max_tokens = max_tokens

    def __call__(self, problem: Problem, sampled_ids: Sequence[int]) -> Taught:
        """Return a completion with the solution behind its thought; as it was without one, or too long."""
        num_sampled = len(sampled_ids)
        as_it_was = Taught(list(sampled_ids), num_sampled, torch.zeros(num_sampled, dtype=torch.bool))
        thought = self._find(sampled_ids)
        if thought is None or thought.closing.start == thought.closing.stop:
            return as_it_was
        ids = [*sampled_ids[: thought.text.stop], *self._layout.suffix_ids(problem)]
        if len(ids) > self._max_tokens:
            return as_it_was
        own = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, sampled_ids, strict=False)))
        is_around_C = torch.ones(len(ids), dtype=torch.bool)
        is_around_C[thought.text] = False
        return Taught(ids, own, is_around_C)


def put_behind(output: dict[str, Tensor], taught: Sequence[Taught], pad_token_id: int) -> dict[str, Tensor]:
    """Return TRL's batch with other completions, and which of their tokens are around thoughts (`around`).

    `sampled` says which tokens the student has sampled. What is known of each token is kept for those alone.
    A completion that is masked as a whole stays so.
    """
    width, device = output["completion_ids"].size(1), output["completion_ids"].device
    is_used_B1 = output["completion_mask"].any(1, keepdim=True).long()
    lengths = [len(item.ids) for item in taught]

    def padded(rows: Sequence[Tensor], value: float = 0) -> Tensor:
        return pad_sequence(list(rows), batch_first=True, padding_value=value).to(device)

    own = [torch.arange(n) < item.num_own for n, item in zip(lengths, taught, strict=True)]
    changed = {
        "completion_ids": padded([torch.tensor(item.ids) for item in taught], pad_token_id),
        "completion_mask": padded([torch.ones(n).long() for n in lengths]) * is_used_B1,
        "around": padded([item.is_around_C.long() for item in taught]) * is_used_B1,
        "sampled": padded([row.long() for row in own]),
    }
    new_width = changed["completion_ids"].size(1)
    for name, value in output.items():
        if name in changed or value.dim() != 2 or value.size(1) != width or name.startswith("prompt"):
            continue
        wide = torch.nn.functional.pad(value, (0, max(0, new_width - width)))[:, :new_width]
        # Not known and not counted at other tokens; the reference's would be in exp(log p_ref - log p).
        unknown = -1e4 if name == "ref_per_token_logps" else 0
        changed[name] = wide.masked_fill(changed["sampled"] == 0, unknown)
    return {**output, **changed}
