"""Which rows are read when: two processes with three rows each, one by one or in units."""

from __future__ import annotations

import pytest

from rlt.trainers import early
from rlt.trainers.early import Rounds, units_of

ALONE = units_of(3, 1)


def lists(found) -> list[list[list[int]]]:
    return [[list(unit) for unit in units] for units in found]


def test_units_are_known_beforehand_and_of_like_size():
    assert lists([units_of(7, 3)]) == [[[0, 1], [2, 3], [4, 5, 6]]]
    assert lists([units_of(4, 8), units_of(4, None)]) == [[[0, 1, 2, 3]]] * 2
    assert lists([ALONE]) == [[[0], [1], [2]]]


def test_a_row_waits_until_every_process_has_one():
    rounds = Rounds(ALONE, 2)
    rounds.add([2, 0])
    assert not rounds.are_ready
    rounds.add([5])
    assert rounds.are_ready
    assert lists(rounds.next()) == [[[2]], [[2]]]  # as many each, in the order of their arrival
    assert not rounds.are_ready
    assert not rounds.have_all_come
    rounds.add([3, 4])
    assert lists(rounds.next()) == [[[0]], [[0]]]
    rounds.add([1])
    assert rounds.have_all_come
    assert lists(rounds.next()) == [[[1]], [[1]]]
    assert not rounds.are_ready


def test_a_unit_waits_for_its_last_row():
    rounds = Rounds(units_of(4, 2), 2)
    rounds.add([3, 0, 7, 6])  # of the first process's two units one row each; the second one's last unit
    assert not rounds.are_ready
    rounds.add([2])
    assert lists(rounds.next()) == [[[2, 3]], [[2, 3]]]
    rounds.add([5, 1, 4])
    assert lists(rounds.next()) == [[[0, 1]], [[0, 1]]]
    assert rounds.have_all_come


@pytest.mark.parametrize(("most", "expected"), [(1, [[[1], [2]]]), (3, [[[0, 1, 2]]])])
def test_not_too_many_are_read_before_looking_again(most, expected, monkeypatch):
    monkeypatch.setattr(early, "MOST_AT_ONCE", 2)
    rounds = Rounds(units_of(6, most), 1)
    rounds.add([1, 2, 0, 5, 4, 3])
    assert lists(rounds.next()) == expected


def test_a_row_comes_once():
    rounds = Rounds(units_of(2, 1), 1)
    rounds.add([1])
    with pytest.raises(KeyError):
        rounds.add([1])
