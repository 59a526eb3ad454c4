"""A control: the base answers with the beginning of its thought given, copied from the question.

If a few characters of a good explanation made the base find solutions, students would need no teacher. Leaves
out what the stage evaluate does for real students: servers, grading by mathematics, resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from transformers import PreTrainedTokenizerBase, set_seed

from rlt.evaluation.paired import Shares
from rlt.formats.layout import StudentLayout
from rlt.models.load import load_model
from rlt.quickstart.world import ToyRow
from rlt.records import Problem

TEMPERATURE = 0.7
"""As students answer in quickstart_evaluate."""


def answers_after(
    model_path: Path,
    layout: StudentLayout,
    rows: Sequence[ToyRow],
    prefix: Callable[[str], str],
    *,
    num_samples: int,
    max_tokens: int,
    seed: int,
) -> Shares:
    """Return each question's share of right answers, the thought beginning with `prefix(question)`."""
    model = load_model(str(model_path), dtype="float32")
    tokenizer = layout.tokenizer
    found: Shares = {}
    set_seed(seed)
    for row in rows:
        prompt = layout.prefix_ids(Problem("", row.question, row.solution))
        prompt = prompt + tokenizer.encode(prefix(row.question), add_special_tokens=False)
        ids_BT = torch.tensor([prompt] * num_samples)
        written_BT = model.generate(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            max_new_tokens=max_tokens,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
        )[:, len(prompt) :]
        found[row.question] = fmean(_is_right(tokenizer, ids_T.tolist(), layout, row) for ids_T in written_BT)
    return found


def _is_right(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], layout: StudentLayout, row: ToyRow
) -> bool:
    """Whether the first solution of an answer, between its tags, is the row's."""
    tag = layout.tags.solution
    _, _, rest = tokenizer.decode(ids).partition(tag.open)
    solution, close, _ = rest.partition(tag.close)
    return bool(close) and solution.strip() == row.solution
