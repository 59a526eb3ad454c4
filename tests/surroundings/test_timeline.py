"""Spans of phases: lengths, waits and merging by hand, and a stopwatch in several threads."""

from __future__ import annotations

import threading

import pytest

from rlt.surroundings.timeline import PHASES, WAIT, Span, Stopwatch, Timeline, covered, merged


def spans(phase: str, *times: tuple[float, float], lane: str = "process 0") -> list[Span]:
    return [Span(lane, phase, begin, end) for begin, end in times]


def test_what_several_spans_cover_counts_once():
    assert covered([]) == 0
    # 1-4 and 3-6 make five seconds, 2-3 lies inside, 8-9 apart
    assert covered(spans("reward", (3, 6), (1, 4), (2, 3), (8, 9))) == 6
    assert covered(spans("reward", (1, 2), (2, 3))) == 2


def test_a_process_that_scores_while_it_waits_for_completions_does_not_wait():
    # waits 0-10 and scores 4-6 and 9-12: it computes nothing in 8 - 1 seconds of its wait
    one = [*spans(WAIT, (0, 10)), *spans("reward", (4, 6), (9, 12))]
    two = spans(WAIT, (0, 12), lane="process 1")
    server = spans("generate", (0, 10), lane="server a")
    step = Timeline(1, 12.0, (*one, *two, *server))
    assert step.seconds_waited() == 7 + 12
    assert step.seconds_of("generate") == 10
    assert step.seconds_of("reward") == 5


def test_phases_of_several_lanes_at_once_are_counted_once():
    both = [*spans("generate", (0, 4), lane="server a"), *spans("generate", (1, 6), lane="server b")]
    assert Timeline(1, 6.0, tuple(both)).seconds_of("generate") == 6


def test_requests_that_follow_each_other_closely_become_one_span():
    found = merged(spans("generate", (0, 1), (1.05, 2), (0.5, 1.5), (2.2, 3)), gap=0.1)
    assert found == (Span("process 0", "generate", 0, 2), Span("process 0", "generate", 2.2, 3))
    mixed = [*spans("generate", (0, 1)), *spans("update", (1, 2)), *spans("generate", (1, 2), lane="b")]
    assert len(merged(mixed, gap=0.1)) == 3


def test_only_what_lies_in_a_step_is_recorded():
    watch = Stopwatch()
    with watch.span("process 0", "sync"):  # an evaluation before the first step
        pass
    assert watch.end() is None
    with watch.span("server a", "generate"):
        watch.begin()
    with pytest.raises(ZeroDivisionError), watch.span("process 0", "reward"):
        _ = 1 / 0

    def ask() -> None:
        with watch.span("server a", "generate"):
            pass

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = watch.end()
    assert ended is not None
    began, over, found = ended
    assert [span.lane for span in found] == ["server a", "process 0", *["server a"] * 8]
    assert all(began <= span.begin <= span.end <= over for span in found)
    assert watch.end() is None


def test_what_goes_on_over_the_end_of_a_step_is_in_both():
    """A server that writes during an update and the evaluation after it."""
    watch = Stopwatch()
    watch.begin()
    with watch.span("server a", "generate"):
        first = watch.end()
        watch.begin()
    second = watch.end()
    assert first is not None
    assert second is not None
    ((_, phase, begin, end),) = first[2]
    assert phase == "generate"
    assert first[0] <= begin <= end == first[1]  # up to the end of the step
    ((_, _, begin, end),) = second[2]
    assert begin == second[0]  # from the begin of the next
    assert begin <= end <= second[1]


def test_every_phase_has_its_words():
    assert WAIT in PHASES
    assert len(set(PHASES.values())) == len(PHASES)
