"""Completions of a step on their way: what is asked for, how old they are, and what a checkpoint holds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from rlt.errors import CheckpointError
from rlt.generation.types import Sampling
from rlt.records import Completion
from rlt.trainers.writing import FOLDER, Asked, Writing, keep, kept_in

ASKED = Asked([4, 4], 4, 2, [[1], [2, 3], [4], [5]], [10, 11, 12, 13], Sampling(0.7, 16, (9,)))
"""Of the second of two processes with four rows each, in pairs."""
EXACT = (-1 / 3, -1e-300, -0.1 - 0.2, -math.pi)
"""Numbers that a shorter format would change."""


def completion(row: int) -> Completion:
    return Completion((row, 2, 151_935), (*EXACT[:2], EXACT[row % 4]), "length" if row % 2 else "stop")


def test_a_process_knows_its_own_rows():
    assert ASKED.num_rows == 8
    assert ASKED.is_for([[4], [4], [5], [5]])
    assert not ASKED.is_for([[4], [4], [5], [6]])
    writing = Writing(ASKED, updates=6)
    writing.add([(row, completion(row)) for row in (7, 5, 4, 6)])
    assert writing.own(4) == [completion(row) for row in (4, 5, 6, 7)]
    assert not writing.is_whole


def test_the_age_of_a_row_is_that_of_the_weights_that_wrote_it():
    writing = Writing(ASKED, updates=6)
    assert writing.is_by(6)
    writing.add([(row, completion(row)) for row in (7, 0, 4)])
    writing.updates = 7  # the weights of then could not be sent again
    assert not writing.is_by(6)
    assert not writing.is_by(7)  # a checkpoint after seven updates could not draw all of it again
    writing.add([(row, completion(row)) for row in (1, 2, 3, 5, 6)])
    assert writing.is_whole
    assert writing.staleness(7) == [1, 0, 0, 0, 1, 0, 0, 1]


def test_a_checkpoint_holds_them_to_the_last_bit(tmp_path: Path):
    writing = Writing(ASKED, updates=6)
    writing.add([(row, completion(row)) for row in range(8)])
    weights = tmp_path / "weights-1"
    weights.mkdir()
    keep(writing, tmp_path, weights)
    kept = kept_in(tmp_path)
    assert kept is not None
    assert kept.found == writing.found
    assert (kept.digest, kept.updates, kept.weights) == (ASKED.digest(), 6, None)  # nothing is to be written
    assert kept_in(tmp_path / "older") is None


def test_where_rows_are_missing_it_holds_the_weights_that_write_them(tmp_path: Path):
    writing = Writing(ASKED, updates=6)
    writing.add([(3, completion(3))])
    weights = tmp_path / "weights-1"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"as they were pushed")
    keep(writing, tmp_path / "checkpoint", weights)
    kept = kept_in(tmp_path / "checkpoint")
    assert kept is not None
    assert kept.weights is not None
    assert set(kept.found) == {3}
    assert (kept.weights / "model.safetensors").read_bytes() == b"as they were pushed"
    keep(writing, tmp_path / "nccl", None)
    kept = kept_in(tmp_path / "nccl")
    assert kept is not None
    assert kept.weights is None


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, group=4),
        replace(ASKED, seeds=[10, 11, 12, 14]),
        replace(ASKED, prompts=[[1], [2], [4], [5]]),
        replace(ASKED, sampling=replace(ASKED.sampling, temperature=0.8)),
        replace(ASKED, sampling=replace(ASKED.sampling, stop_strings=("x",))),
    ],
)
def test_what_was_asked_for_otherwise_is_told_apart(other: Asked):
    assert other.digest() != ASKED.digest()
    assert replace(ASKED, rows_per_process=[8], start=0).digest() == ASKED.digest()  # one process: the same


@pytest.mark.parametrize("name", ["completions.parquet", "asked.json"])
def test_what_cannot_be_read_is_a_sentence(name: str, tmp_path: Path):
    writing = Writing(ASKED, updates=6)
    writing.add([(3, completion(3))])
    keep(writing, tmp_path, None)
    file = tmp_path / FOLDER / name
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"written_ahead cannot be read .* or remove the folder"):
        kept_in(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="resume from an older checkpoint"):
        kept_in(tmp_path)


def test_a_full_disk_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="make room there and resume from the checkpoint before"):
        keep(Writing(ASKED, updates=6), tmp_path / "file", None)
