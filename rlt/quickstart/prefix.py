"""A control: the base answers with the beginning of its thought given, copied from the question.

If a few characters of a good explanation made the base find solutions, students would need no teacher. Leaves
out what the stage evaluate does for real students: servers, grading by mathematics, resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

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
    model: Any = load_model(str(model_path), dtype="float32")
    prompts = []
    for row in rows:
        opened = layout.prefix_ids(Problem("", row.question, row.solution))
        begun = layout.tokenizer.encode(prefix(row.question), add_special_tokens=False)
        prompts += [opened + begun] * num_samples
    assert len({len(prompt) for prompt in prompts}) == 1, "a toy world's questions are equally long"
    ids_BT = torch.tensor(prompts)
    set_seed(seed)
    written_BT = model.generate(
        input_ids=ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        max_new_tokens=max_tokens,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        top_p=1.0,
    )[:, ids_BT.shape[1] :].tolist()
    found: Shares = {}
    for number, row in enumerate(rows):
        answers = written_BT[number * num_samples : (number + 1) * num_samples]
        found[row.question] = fmean(_is_right(layout.tokenizer, ids, layout, row) for ids in answers)
    return found


def _is_right(tokenizer: PreTrainedTokenizerBase, ids: list[int], layout: StudentLayout, row: ToyRow) -> bool:
    """Whether the first solution of an answer, between its tags, is the row's."""
    tag = layout.tags.solution
    _, _, rest = str(tokenizer.decode(ids)).partition(tag.open)
    solution, close, _ = rest.partition(tag.close)
    return bool(close) and solution.strip() == row.solution
