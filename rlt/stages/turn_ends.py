"""Whether a trained model ends its turn: rows that teach it, and saved files that stop it there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlt.errors import CheckpointError, DataError
from rlt.formats.layout import StudentLayout
from rlt.models.load import load_tokenizer
from rlt.trainers.sft import Row


def count_ends(rows: Sequence[Row], turn_end_id: int, who: str) -> int:
    """Return how many rows teach a teacher or a student (`who`) to stop; truncated ones do not."""
    num_ends = sum(row["labels"][-1] == turn_end_id for row in rows)
    if not num_ends:
        raise DataError(
            f"all {len(rows)} rows are truncated, so the {who} would never learn to stop: raise "
            "data.max_length, or take data.on_long_row=drop"
        )
    return num_ends


def check_stop(directory: Path, layout: StudentLayout) -> str:
    """Return one line that names the token which ends the student's turn; the saved model must stop at it.

    Engines read it from different places: generation_config.json, config.json, the tokenizer.
    """
    names = ("generation_config.json", "config.json")
    eos = {name: _eos_ids(directory, name) for name in names}
    eos["the tokenizer"] = [load_tokenizer(str(directory)).eos_token_id]
    token = f"{layout.turn_end} ({layout.turn_end_id})"
    if wrong := [name for name, ids in eos.items() if ids[0] != layout.turn_end_id]:
        raise CheckpointError(
            f"the student in {directory} was taught to end its turn with {token}, but {' and '.join(wrong)} "
            "would stop it at another token first; correct that before using it"
        )
    return f"the student was taught to stop with {token}, and {', '.join(eos)} stop there"


def check_ends(directory: Path, ends: Sequence[int], tokenizer: PreTrainedTokenizerBase, who: str) -> str:
    """Return one line that names the tokens at which a model's turn ended in training.

    The saved model must stop at each of them, and its tokenizer must call them the same. Other places than
    generation_config.json may name fewer: what a policy started with, it keeps.
    """
    tokens = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in ends}
    stops, saved = _eos_ids(directory, "generation_config.json"), load_tokenizer(str(directory))
    wrong = [i for i in ends if i not in stops or saved.convert_ids_to_tokens(i) != tokens[i]]
    if wrong:
        raise CheckpointError(
            f"the {who} in {directory} was trained to end its turn with {_listed(wrong, tokens)}, at which "
            "its generation_config.json and tokenizer would not stop it; correct that before using it"
        )
    return f"the {who} stops at {_listed(ends, tokens)}, as generation_config.json says"


def _eos_ids(directory: Path, name: str) -> list[Any]:
    ids = json.loads((directory / name).read_text(encoding="utf-8")).get("eos_token_id")
    return ids if isinstance(ids, list) else [ids]


def _listed(ids: Sequence[int], tokens: dict[int, str]) -> str:
    return " and ".join(f"{tokens[i]} ({i})" for i in ids)
