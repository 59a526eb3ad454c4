"""The length policy on hand-worked numbers. Rows are given by their lengths."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt.config.schema import DataSettings
from rlt.data.kept import BadRow, KeptRows
from rlt.data.lengths import LengthRule, fit_lengths, keep_shortest, summarize_lengths
from rlt.errors import DataError


def rule(limit, what="row tokens", setting="data.max_length"):
    return LengthRule[int](what, lambda length: length, limit, setting)


def table(*items, first=1):
    return KeptRows("a.jsonl", "line", dict(enumerate(items, start=first)), len(items))


def under(policy):
    return DataSettings(on_long_row=policy)


def shorten(row, excess):
    """Cut a row of (frame, explanation) tokens."""
    frame, explanation = row
    return (frame, explanation - excess) if explanation > excess else None


WHOLE = LengthRule[tuple[int, int]]("tokens", sum, 8, "data.max_length")


def test_report_by_hand():
    # 1..100: the 90th and the 99th of 100 sorted values; bins of ceil(101 / 5) = 21
    report = summarize_lengths(rule(95), range(100, 0, -1))
    assert (report.min, report.median, report.p90, report.p99, report.max) == (1, 50.5, 90, 99, 100)
    assert (report.count, report.num_over) == (100, 5)
    assert report.histogram == ((0, 20, 20), (21, 41, 21), (42, 62, 21), (63, 83, 21), (84, 104, 17))


def test_report_prints_in_seven_lines():
    bar = "█" * 40
    assert str(summarize_lengths(rule(8, "prompt tokens", "max_prompt_length"), [1, 1, 1, 1, 9])) == (
        "prompt tokens of 5 rows, limit 8 (max_prompt_length): 1 over\n"
        "  min 1 · median 1 · p90 9 · p99 9 · max 9\n"
        f"  0 to 1 {bar} 4\n"
        f"  2 to 3 {' ' * 40} 0\n"
        f"  4 to 5 {' ' * 40} 0\n"
        f"  6 to 7 {' ' * 40} 0\n"
        f"  8 to 9 {'█' * 10}{' ' * 30} 1"
    )


def test_report_of_one_row():
    report = summarize_lengths(rule(8), [0])
    assert (report.median, report.max, report.histogram[0]) == (0, 0, (0, 0, 1))


def test_limit_itself_fits():
    assert fit_lengths(table(7, 8), [rule(8)], under("error")).values == [7, 8]


def test_drop_and_the_report_of_what_there_was(caplog):
    caplog.set_level(logging.INFO)
    kept = fit_lengths(table(5, 9, 8, 100), [rule(8)], under("drop"))
    assert kept.items == {1: 5, 3: 8}
    assert kept.skipped == (
        BadRow("a.jsonl", 2, "9 row tokens where data.max_length allows 8"),
        BadRow("a.jsonl", 4, "100 row tokens where data.max_length allows 8"),
    )
    assert "row tokens of 4 rows, limit 8 (data.max_length): 2 over" in caplog.text


def test_error_names_the_row_of_the_source_and_the_setting():
    before = (BadRow("a.jsonl", 11, "`solution` is empty"),)
    left = KeptRows("a.jsonl", "line", {10: 5, 12: 9, 13: 100}, 4, before)
    with pytest.raises(DataError) as error:
        fit_lengths(left, [rule(8)], under("error"))
    assert str(error.value) == (
        "a.jsonl, line 12: 9 row tokens where data.max_length allows 8; 1 more row is too long (line 13); "
        "raise the limit (the longest has 100 row tokens), or skip such rows with data.on_long_row=drop"
    )
    assert [bad.row for bad in fit_lengths(left, [rule(8)], under("drop")).skipped] == [11, 12, 13]


def test_rl_row_must_fit_the_prompt_limit_and_the_students_room():
    prompt = LengthRule[tuple[int, int]]("prompt tokens", lambda row: row[0], 20, "max_prompt_length")
    student = LengthRule[tuple[int, int]]("student tokens", lambda row: row[1], 14, "the student's context")
    kept = fit_lengths(table((10, 14), (30, 1), (10, 15)), [prompt, student], under("drop"))
    assert list(kept.items) == [1]
    assert [bad.reason for bad in kept.skipped] == [
        "30 prompt tokens where max_prompt_length allows 20",
        "15 student tokens where the student's context allows 14",
    ]


def test_truncate_cuts_the_explanation_by_the_excess():
    # rows of 8, 12 and 12 tokens with explanations of 5, 6 and 4; 4 too many in the last two
    kept = fit_lengths(table((3, 5), (6, 6), (8, 4)), [WHOLE], under("truncate"), shorten)
    assert kept.items == {1: (3, 5), 2: (6, 2)}
    assert [bad.row for bad in kept.skipped] == [3]


def test_a_row_without_any_explanation_left_is_dropped_not_trained_on():
    """Truncation that removed the whole response gave labels of -100 only, and a NaN loss."""
    with pytest.raises(DataError, match=r"no row is left: a.jsonl, line 1: 100 tokens where"):
        fit_lengths(table((10, 90)), [WHOLE], under("truncate"), shorten)


def test_nothing_left():
    with pytest.raises(DataError) as error:
        fit_lengths(table(9, 10), [rule(8)], under("drop"))
    assert str(error.value) == (
        "no row is left: a.jsonl, line 1: 9 row tokens where data.max_length allows 8; "
        "1 more row is too long (line 2); raise the limit (the longest has 10 row tokens)"
    )


@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=30),
    limit=st.integers(1, 100),
)
def test_every_row_is_kept_or_dropped_and_kept_rows_fit(rows, limit):
    whole = LengthRule[tuple[int, int]]("tokens", sum, limit, "data.max_length")
    try:
        kept = fit_lengths(table(*rows, first=0), [whole], under("truncate"), shorten)
    except DataError:
        assert all(frame >= limit for frame, _ in rows)
        return
    assert sorted([*kept.items, *(bad.row for bad in kept.skipped)]) == list(range(len(rows)))
    for i, (frame, explanation) in kept.items.items():
        assert frame == rows[i][0]
        assert frame + explanation == min(sum(rows[i]), limit)


def test_the_shortest_rows_keep_their_places_and_what_was_skipped_before():
    rows = fit_lengths(table(5, 9, 1, 3, 4), [rule(8)], under("drop"))
    kept = keep_shortest(rows, rule(8).measure, DataSettings(shortest=2))
    assert (kept.items, kept.total) == ({3: 1, 4: 3}, 5)
    assert kept.skipped == rows.skipped != ()
    assert keep_shortest(rows, rule(8).measure, DataSettings(shortest=9)) is rows
    assert keep_shortest(rows, rule(8).measure, DataSettings()) is rows
