"""Micro-batches that are as wide as their own rows: numbers worked out by hand, and every value kept."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.trainers.meter import token_counts
from rlt.trainers.micro_batches import deal, micro_batch, rows_of

CPU = torch.device("cpu")
PAD = 9
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def padded_batch():
    """Return three rows as TRL pads them: prompts of 1, 3, 2 tokens and completions of 4, 1, 0."""
    return {
        "prompt_ids": torch.tensor([[9, 9, 1], [2, 3, 4], [9, 5, 6]]),
        "prompt_mask": torch.tensor([[0, 0, 1], [1, 1, 1], [0, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 3, 4], [5, 9, 9, 9], [9, 9, 9, 9]]),
        "completion_mask": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]),
        "ref_per_token_logps": torch.tensor([[-1.0, -2, -3, -4], [-5, 0, 0, 0], [0, 0, 0, 0]]),
        "importance_sampling_ratio": torch.tensor([[1.5], [0.5], [1.0]]),
        "advantages": torch.tensor([0.1, 0.2, 0.3]),
        "num_items_in_batch": torch.tensor(5),
    }


def test_two_short_rows_take_no_column_of_the_long_one():
    rows = rows_of(padded_batch())
    batch = micro_batch([rows[2], rows[1]], PAD, CPU)
    assert batch["prompt_ids"].tolist() == [[9, 5, 6], [2, 3, 4]]
    assert batch["prompt_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert batch["completion_ids"].tolist() == [[9], [5]]
    assert batch["completion_mask"].tolist() == [[0], [1]]
    assert batch["ref_per_token_logps"].tolist() == [[0.0], [-5.0]]
    assert batch["importance_sampling_ratio"].tolist() == [[1.0], [0.5]]
    assert batch["advantages"].tolist() == pytest.approx([0.3, 0.2])
    assert "num_items_in_batch" not in batch  # the trainer's: it holds for all rows
    lengths_B, num_computed = token_counts(batch)
    assert (lengths_B.tolist(), num_computed) == ([2, 4], 2 * (3 + 1))


def test_one_row_has_no_padding_at_all():
    batch = micro_batch(rows_of(padded_batch())[:1], PAD, CPU)
    assert batch["prompt_ids"].tolist() == [[1]]
    assert batch["completion_ids"].tolist() == [[1, 2, 3, 4]]
    assert token_counts(batch)[1] == 5


def test_a_row_without_completion_keeps_one_column():
    batch = micro_batch(rows_of(padded_batch())[2:], PAD, CPU)
    assert batch["completion_ids"].tolist() == [[PAD]]
    assert batch["completion_mask"].tolist() == [[0]]
    assert batch["ref_per_token_logps"].tolist() == [[0.0]]


def test_a_completion_that_is_masked_as_a_whole_takes_no_columns():
    padded = padded_batch()
    padded["completion_mask"][0] = 0  # trainer.mask_truncated
    rows = rows_of(padded)
    assert [row.size for row in rows] == [(1, 0), (3, 1), (2, 0)]


def test_rows_travel_between_processes_without_the_padding_of_others():
    """A slice of a tensor is pickled with the storage of all of it."""
    wide = {name: torch.zeros(64, 1000, dtype=torch.long) for name in padded_batch() if name.endswith("_ids")}
    masks = {name.replace("_ids", "_mask"): value.clone() for name, value in wide.items()}
    for mask in masks.values():
        mask[:, :10] = 1
    num_bytes = len(pickle.dumps(rows_of({**wide, **masks})))
    assert num_bytes < 64 * 4 * (10 * 8 + 600)  # 64 rows with four tensors, each with its description


def test_a_row_without_padding_needs_no_attention_mask(monkeypatch):
    """A mask takes memory with the square of the length, and SDPA's flash kernel knows none."""
    model = Qwen2ForCausalLM(Qwen2Config(**SHAPE, attn_implementation="sdpa")).train()
    plain, masks = torch.nn.functional.scaled_dot_product_attention, []

    def attend(*args, attn_mask=None, is_causal=False, **kwargs):
        masks.append((attn_mask is None, is_causal))
        return plain(*args, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    rows = rows_of(padded_batch())
    for members in (rows[:1], rows[:2]):
        batch = micro_batch(members, PAD, CPU)
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        model(input_ids=ids, attention_mask=mask)
    assert masks == [(True, True), (False, False)]


def test_rows_are_dealt_by_length():
    lengths = [(0, n) for n in (10, 80, 30, 40, 70, 20, 60, 50)]
    # in order of length: rows 1 4 6 7 | 3 2 5 0; two processes, two rows a pass
    assert deal(lengths, 2, 2) == [[[1, 4], [3, 2]], [[6, 7], [5, 0]]]
    assert deal(lengths, 1, 4) == [[[1, 4, 6, 7], [3, 2, 5, 0]]]


@given(
    lengths=st.lists(st.integers(1, 1000), min_size=24, max_size=24),
    shape=st.sampled_from([(1, 1), (2, 3), (4, 2)]),
)
def test_every_row_is_dealt_once_and_processes_in_lockstep_do_not_wait(lengths, shape):
    num_processes, per_pass = shape
    dealt = deal([(0, n) for n in lengths], num_processes, per_pass)
    assert sorted(i for passes in dealt for members in passes for i in members) == list(range(24))
    assert {len(passes) for passes in dealt} == {24 // num_processes // per_pass}
    widths = [[max(lengths[i] for i in members) for members in passes] for passes in dealt]
    for now, later in zip(zip(*widths, strict=True), list(zip(*widths, strict=True))[1:], strict=False):
        assert min(now) >= max(later)


def test_passes_of_short_rows_are_joined():
    sizes = [(5, 95), (5, 5), (4, 5), (5, 5), (50, 50), (5, 5), (5, 5), (5, 5)]
    # in order of length: rows 0 and 4 of 100 tokens, then six of ten or nine
    assert deal(sizes, 1, 1, 100) == [[[0], [4], [1, 3, 5, 6, 7, 2]]]
    assert deal(sizes, 1, 1, 40) == [[[0], [4], [1, 3, 5, 6], [7], [2]]]  # 20 for 19 is too much
    assert deal(sizes, 1, 1, 5) == deal(sizes, 1, 1)
    # as many rows on each process: 20 for 19 is too much for the second one, so the first one waits too
    assert deal(sizes, 2, 1, 100) == [[[0], [1, 5], [7]], [[4], [3, 6], [2]]]
    assert deal([(5, 5)] * 4, 1, 1, 100) == [[[0], [1, 2, 3]]]  # two at least
    # a prompt of 50 beside a completion of 95 would take 145 columns, though both rows have 100 tokens
    assert deal([(60, 60), (50, 50), (5, 95), (1, 1)], 1, 1, 1000) == [[[0], [1], [2], [3]]]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1000)), min_size=24, max_size=24),
    shape=st.sampled_from([(1, 1), (2, 3), (4, 2), (1, 24), (2, 12)]),
    most=st.integers(0, 3000),
)
def test_joined_passes_hold_every_row_once_within_the_limit(sizes, shape, most):
    num_processes, per_pass = shape
    dealt = deal(sizes, num_processes, per_pass, most)
    assert sorted(i for passes in dealt for members in passes for i in members) == list(range(24))
    numbers = {tuple(len(members) for members in passes) for passes in dealt}
    assert len(numbers) == 1  # of rows in each pass
    assert min(2, 24 // num_processes // per_pass) <= len(numbers.pop()) <= 24 // num_processes // per_pass
    for members in (members for passes in dealt for members in passes if len(members) > per_pass):
        prompts, completions = zip(*(sizes[i] for i in members), strict=True)
        padded = len(members) * (max(prompts) + max(completions))
        assert padded <= min(most, 1.03 * sum(prompts + completions))
