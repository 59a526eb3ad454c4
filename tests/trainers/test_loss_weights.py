"""What each row of a batch weighs in the gradient, measured, against the rule of the original's libraries.

transformers 4.51.1 divides the sum over a process's tokens by their number, and processes are averaged: a
token of rank r weighs 1 / (ranks x tokens of r). The weights are not read from our code: the gradient that
the optimizer gets is taken apart into those of single rows, computed in float64.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.stage_runs import run_processes, succeed
from loss_weights import MATRIX
from transformers import AutoModelForCausalLM

from rlt.trainers.sft import IGNORED

NUM_ROWS, SEED = 16, 42


def rows_of(lengths: list[int]) -> list[dict[str, list[int]]]:
    """Return rows of random tokens, of which all but the first two count."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for length in lengths:
        ids = torch.randint(0, 300, (2 + length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * 2 + ids[2:]})
    return rows


def ranks_of(num_ranks: int) -> list[int]:
    """Return the rank that has each row, one row a pass: as the seed's permutation is dealt out."""
    order = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(SEED)).tolist()
    ranks = [0] * NUM_ROWS
    for place, row in enumerate(order):
        ranks[row] = place % num_ranks
    return ranks


def by_process(counts: list[int], num_ranks: int) -> np.ndarray:
    """Return the weight of a token of each row by the original's rule."""
    ranks = np.array(ranks_of(num_ranks))
    tokens = np.array([np.sum(np.array(counts)[ranks == rank]) for rank in range(num_ranks)])
    return 1 / (num_ranks * tokens[ranks])


def measured(model: Path, rows: list[dict], gradient: torch.Tensor) -> np.ndarray:
    """Return the weights with which the rows' own gradients add up to a gradient."""
    exact = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64, attn_implementation="eager")
    columns = []
    for row in rows:
        exact.zero_grad()
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        logits = exact(input_ids=ids).logits[0, :-1]
        torch.nn.functional.cross_entropy(
            logits, labels[0, 1:], ignore_index=IGNORED, reduction="sum"
        ).backward()
        columns.append(exact.get_parameter(MATRIX).grad.flatten().numpy().copy())
    weights, *_ = np.linalg.lstsq(np.stack(columns, axis=1), gradient.double().flatten().numpy(), rcond=None)
    return weights


def weights_of_a_step(
    model: Path, folder: Path, lengths: list[int], num_ranks: int, kinds: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """Return the weights that a step with each set of words gives to rows of some lengths."""
    rows = rows_of(lengths)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "kinds.json").write_text(json.dumps(kinds))
    script = Path(__file__).with_name("loss_weights.py")
    words = (str(model), str(folder))
    succeed(run_processes("ddp", words, script=script, timeout=1500, processes=num_ranks))
    return {name: measured(model, rows, torch.load(folder / f"{name}.pt")) for name in kinds}


def test_the_rule_by_hand():
    """Four tokens on one rank and twelve on the other: a short row's token weighs three times as much."""
    ranks = ranks_of(2)
    counts = [1 if rank == 0 else 3 for rank in ranks]
    weights = by_process(counts, 2)
    assert set(np.round(weights * 48, 12)) == {3.0, 1.0}  # 1 / (2 x 8) and 1 / (2 x 24)
    assert np.dot(weights, counts) == pytest.approx(1)


@pytest.mark.slow
def test_two_ranks_under_both_recipes(tiny_teacher, tmp_path):
    lengths = [4 + 3 * i for i in range(NUM_ROWS)]
    modern = ["recipe=modern", f"train_batch_size={NUM_ROWS}"]
    found = weights_of_a_step(tiny_teacher, tmp_path, lengths, 2, {"released": [], "modern": modern})
    assert found["released"] == pytest.approx(by_process(lengths, 2), rel=5e-3)
    assert found["modern"] == pytest.approx(np.full(NUM_ROWS, 1 / sum(lengths)), rel=5e-3)


@pytest.mark.original
@pytest.mark.timeout(2000)
def test_eight_ranks_and_rows_as_long_as_real_ones(original, shared, qwen_tokenizer, tiny_teacher, tmp_path):
    """16 rows of Sky-T1, a sixty-fourth of their tokens each: 8 x 1 x 2, as the release trains."""
    lines = (shared / "data" / "traces_sky_t1_amc23.jsonl").read_text().splitlines()[::17][:NUM_ROWS]
    texts = [json.loads(line)["conversations"][1]["value"] for line in lines]
    lengths = [max(2, len(qwen_tokenizer(text)["input_ids"]) // 64) for text in texts]
    found = weights_of_a_step(tiny_teacher, tmp_path, lengths, 8, {"released": []})
    assert found["released"] == pytest.approx(by_process(lengths, 8), rel=5e-3)
