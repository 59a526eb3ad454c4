"""The length policy on hand-worked numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt.data.lengths import LengthRule, plan_lengths, summarize_lengths
from rlt.errors import DataError


def rule(lengths, limit, what="row tokens", setting="data.max_length"):
    return LengthRule(what, lengths, limit, setting)


def test_report_by_hand():
    # 1..100: the 90th and the 99th of 100 sorted values; bins of ceil(101 / 5) = 21
    report = summarize_lengths(rule(range(100, 0, -1), 95))
    assert (report.min, report.median, report.p90, report.p99, report.max) == (1, 50.5, 90, 99, 100)
    assert (report.count, report.num_over) == (100, 5)
    assert report.histogram == ((0, 20, 20), (21, 41, 21), (42, 62, 21), (63, 83, 21), (84, 104, 17))


def test_report_prints_in_seven_lines():
    bar = "█" * 40
    assert str(summarize_lengths(rule([1, 1, 1, 1, 9], 8, "prompt tokens", "max_prompt_length"))) == (
        "prompt tokens of 5 rows, limit 8 (max_prompt_length): 1 over\n"
        "  min 1 · median 1 · p90 9 · p99 9 · max 9\n"
        f"  0 to 1 {bar} 4\n"
        f"  2 to 3 {' ' * 40} 0\n"
        f"  4 to 5 {' ' * 40} 0\n"
        f"  6 to 7 {' ' * 40} 0\n"
        f"  8 to 9 {'█' * 10}{' ' * 30} 1"
    )


def test_report_of_one_row_and_of_none():
    report = summarize_lengths(rule([0], 8))
    assert (report.median, report.max, report.histogram[0]) == (0, 0, (0, 0, 1))
    with pytest.raises(DataError, match="no rows to measure row tokens of"):
        summarize_lengths(rule([], 8))


def test_limit_itself_fits():
    assert plan_lengths([rule([7, 8], 8)], "error").kept == (0, 1)


def test_drop():
    plan = plan_lengths([rule([5, 9, 8, 100], 8)], "drop")
    assert (plan.kept, plan.dropped, dict(plan.explanation_limits)) == ((0, 2), (1, 3), {})
    assert plan.reports[0].max == 100


def test_error_names_the_first_row_and_the_setting():
    with pytest.raises(DataError) as error:
        plan_lengths([rule([5, 9, 100], 8)], "error")
    assert str(error.value) == (
        "2 of 3 rows are too long, first row 2 (of those loaded) with 9 row tokens where data.max_length "
        "allows 8; raise the limit, or see data.on_long_row"
    )


def test_rl_row_must_fit_the_prompt_limit_and_the_students_room():
    prompt = rule([10, 30, 10], 20, "prompt tokens", "max_prompt_length")
    # the student's own text plus max_completion_length = 50 tokens of explanation, in a context of 64
    student = rule([50 + 14, 50 + 1, 50 + 15], 64, "student tokens", "the student's context")
    plan = plan_lengths([prompt, student], "drop")
    assert (plan.kept, plan.dropped) == ((0,), (1, 2))
    assert [report.num_over for report in plan.reports] == [1, 1]
    with pytest.raises(DataError, match=r"first row 2 .* 30 prompt tokens where max_prompt_length allows 20"):
        plan_lengths([prompt, student], "error")


def test_truncate_cuts_the_explanation_by_the_excess():
    # rows of 8, 12 and 12 tokens with explanations of 5, 6 and 4; 4 too many in the last two
    plan = plan_lengths([rule([8, 12, 12], 8)], "truncate", explanation_lengths_N=[5, 6, 4])
    assert (plan.kept, plan.dropped, dict(plan.explanation_limits)) == ((0, 1), (2,), {1: 2})


def test_a_row_without_any_explanation_left_is_dropped_not_trained_on():
    """Truncation that removed the whole response gave labels of -100 only, and a NaN loss."""
    with pytest.raises(DataError, match=r"no row is left: 1 of 1 rows are too long"):
        plan_lengths([rule([100], 10)], "truncate", explanation_lengths_N=[90])


def test_truncate_is_for_sft():
    with pytest.raises(DataError, match=r"data.on_long_row=truncate works in SFT only"):
        plan_lengths([rule([1], 10)], "truncate")


def test_nothing_left():
    with pytest.raises(DataError, match=r"no row is left: 2 of 2 rows are too long, .* allows 8"):
        plan_lengths([rule([9, 10], 8)], "drop")


@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=30),
    limit=st.integers(1, 100),
)
def test_every_row_is_kept_or_dropped_and_kept_rows_fit(rows, limit):
    lengths = [frame + explanation for frame, explanation in rows]
    explanations = [explanation for _, explanation in rows]
    try:
        plan = plan_lengths([rule(lengths, limit)], "truncate", explanation_lengths_N=explanations)
    except DataError:
        assert all(frame >= limit for frame, _ in rows)
        return
    assert sorted((*plan.kept, *plan.dropped)) == list(range(len(rows)))
    for i in plan.kept:
        cut = explanations[i] - plan.explanation_limits.get(i, explanations[i])
        assert lengths[i] - cut == min(lengths[i], limit)
    assert sum(count for _, _, count in plan.reports[0].histogram) == len(rows)
