import itertools
import threading
import time

import pytest

from rlt.errors import GenerationError
from rlt.generation.parallel import Arrivals, TimeLimit, run_all, run_each
from rlt.generation.seeds import spread_seed


def test_results_keep_their_order() -> None:
    def task(i: int):
        return str(i), lambda: (time.sleep(0.02 * (5 - i)), i)[1]

    assert run_all([task(i) for i in range(5)]) == [0, 1, 2, 3, 4]
    assert run_all([task(i) for i in range(5)], max_threads=2) == [0, 1, 2, 3, 4]
    assert run_all([]) == []


def test_first_failure_is_raised_at_once_and_nothing_else_starts() -> None:
    released, started = threading.Event(), []

    def fail() -> None:
        raise GenerationError("no")

    def late() -> None:
        started.append(1)
        released.wait()

    before = set(threading.enumerate())
    tasks = [("waits", released.wait), ("fails", fail), *[("late", late)] * 3]
    with pytest.raises(GenerationError, match="no"):
        run_all(tasks, max_threads=2)
    released.set()
    await_end(set(threading.enumerate()) - before)
    # The failing thread may have taken one more task before it was told to stop.
    assert len(started) <= 1


def await_end(threads: set[threading.Thread]) -> None:
    for thread in threads:
        if thread.name == "rlt-generation":
            thread.join()


def test_timeout_names_who_is_silent() -> None:
    released = threading.Event()
    with pytest.raises(GenerationError, match=r"no answer within 2 s from: server B$"):
        run_all([("server A", lambda: 1), ("server B", released.wait)], timeout=2)
    released.set()


def test_results_come_as_they_are_done() -> None:
    turns = [threading.Event() for _ in range(3)]

    def task(i: int):
        return str(i), lambda: (turns[i].wait(), i * i)[1]

    results = run_each([task(i) for i in range(3)], max_threads=3)
    for i in (2, 0, 1):
        turns[i].set()
        assert next(results) == (i, i * i)
    assert list(results) == []


def test_a_watch_is_asked_while_nothing_comes_and_while_much_does() -> None:
    class Watch:
        look_every = 0.1

        def check(self) -> None:
            raise GenerationError("no more")

    released = threading.Event()
    with pytest.raises(GenerationError, match="no more"):
        run_all([("waits", released.wait)], watch=Watch())
    released.set()
    busy = [(str(i), lambda: time.sleep(0.01)) for i in range(1000)]
    with pytest.raises(GenerationError, match="no more"):
        list(run_each(busy, max_threads=1, watch=Watch()))


def test_many_unfinished_tasks_are_a_few_names_and_a_number() -> None:
    released = threading.Event()
    stuck = [(f"request {i}", released.wait) for i in range(8)]
    with pytest.raises(
        GenerationError, match=r"no answer within 0.2 s from: request 0; .*; request 4 and 3 more$"
    ):
        run_all(stuck, max_threads=2, timeout=0.2)
    released.set()


def test_a_time_limit_counts_down_and_ends_with_a_sentence() -> None:
    limit = TimeLimit("a weight sync", 1000, "generation.sync_timeout")
    assert 0 < limit.left() <= 1000
    limit = TimeLimit("a weight sync", 0.2, "generation.sync_timeout")
    time.sleep(0.25)
    with pytest.raises(GenerationError, match=r"a weight sync was not done within 0.2 s; set g"):
        limit.left()


def test_nothing_starts_after_the_caller_has_left() -> None:
    started: list[int] = []
    has_left = threading.Event()

    def task(i: int):
        return str(i), lambda: (started.append(i), i == 0 or has_left.wait())

    before = set(threading.enumerate())
    results = run_each([task(i) for i in range(50)], max_threads=1)
    next(results)
    results.close()
    has_left.set()
    await_end(set(threading.enumerate()) - before)
    assert len(started) <= 2


def test_spread_seeds_are_far_apart_and_fixed() -> None:
    seeds = sorted(spread_seed(seed) for seed in range(1000))
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 10_000
    assert 0 <= seeds[0] < seeds[-1] < 2**62
    assert spread_seed(1, 2) not in (spread_seed(1), spread_seed(12), spread_seed(2, 1))
    assert spread_seed(0) == 0x5FECEB66FFC86F38 >> 2  # the first bytes of sha256(b"0")


def test_arrivals_gather_while_the_caller_works_and_raise_what_comes_after_them() -> None:
    turns = [threading.Event() for _ in range(3)]
    passed = threading.Event()

    def items():
        for i, turn in enumerate(turns[:2]):
            turn.wait(60)
            yield i
        passed.set()
        turns[2].wait(60)
        raise GenerationError("lost")

    arrivals = Arrivals(items())
    assert arrivals.take(wait=False) == []
    turns[0].set()
    assert arrivals.take(wait=True) == [0]
    turns[1].set()
    passed.wait(60)  # the second item has come, though nobody has asked for it
    turns[2].set()
    assert arrivals.take(wait=True) == [1]
    with pytest.raises(GenerationError, match="lost"):
        arrivals.take(wait=True)
    with pytest.raises(GenerationError, match="lost"):  # and again
        arrivals.take(wait=False)


def test_arrivals_that_are_over_give_nothing_more() -> None:
    arrivals = Arrivals(iter("ab"))
    taken: list[str] = []
    while len(taken) < 2:
        taken += arrivals.take(wait=True)
    assert taken == ["a", "b"]
    assert arrivals.take(wait=True) == []
