"""Which rows are read when: two processes with three rows each."""

from __future__ import annotations

import pytest

from rlt.trainers import early
from rlt.trainers.early import Rounds


def test_a_row_waits_until_every_process_has_one():
    rounds = Rounds([3, 3])
    rounds.add([2, 0])
    assert not rounds.are_ready
    rounds.add([5])
    assert rounds.are_ready
    assert rounds.next() == [[2], [5]]  # as many each, in the order of their arrival
    assert not rounds.are_ready
    assert not rounds.have_all_come
    rounds.add([3, 4])
    assert rounds.next() == [[0], [3]]
    rounds.add([1])
    assert rounds.have_all_come
    assert rounds.next() == [[1], [4]]
    assert not rounds.are_ready


def test_not_too_many_are_read_before_looking_again(monkeypatch):
    monkeypatch.setattr(early, "MOST_AT_ONCE", 2)
    rounds = Rounds([3])
    rounds.add([1, 2, 0])
    assert [rounds.next(), rounds.next()] == [[[1, 2]], [[0]]]


def test_a_row_comes_once():
    rounds = Rounds([2])
    rounds.add([1])
    with pytest.raises(KeyError):
        rounds.add([1])
