"""A wait lasts as long as its limit, and says now and then what for."""

from __future__ import annotations

import time

from rlt.surroundings.waiting import Wait, wait_until


def test_a_wait_without_an_end_is_over_after_its_limit():
    start = time.monotonic()
    wait_until(lambda: False, 0.2, every=0.01)
    assert time.monotonic() - start > 0.2


def test_what_becomes_true_ends_a_wait_before_its_limit():
    looks = iter((False, False, True))
    wait_until(lambda: next(looks), 1e9, every=0.001)
    assert next(looks, "no look is left") == "no look is left"


def test_a_wait_says_what_for_only_after_a_while():
    said: list[tuple[str, float]] = []
    wait = Wait(say=lambda what, seconds: said.append((what, seconds)), every=0.001, say_every=0.1)
    wait.pause("the server")
    assert said == []
    while len(said) < 2:
        wait.pause("the server")
    (first, early), (second, late) = said
    assert first == second == "the server"
    assert early > 0.1
    assert late - early > 0.1
    assert not wait.is_over
