"""How much is done in how many hours, and that a folder keeps its sizes."""

from dataclasses import replace

import pytest

from rlt.errors import DataError
from rlt.real_model.sizes import NAME, Sizes, settle_sizes, short_sizes, sizes_for

SHORT = short_sizes("float32")


def test_three_hours_of_two_cores():
    exact, half = sizes_for(3, "float32"), sizes_for(3, "bfloat16")
    assert (exact.kinds, exact.rl_steps, exact.held_out, exact.students) == (90, 125, 75, 96)
    assert (exact.student_steps, exact.warm_up_steps, exact.student_rows, exact.warm_up_rows) == (
        12,
        18,
        192,
        288,
    )
    assert (half.student_steps, half.warm_up_steps, half.held_out) == (20, 31, 75)


def test_little_and_much_time_stay_within_what_makes_sense():
    least, most = sizes_for(0.01, "float32"), sizes_for(1000, "float32")
    assert least == Sizes(8, 4, 4, rl_steps=125, held_out=8, students=16, dtype="float32")
    assert most == Sizes(200, 100, 100, rl_steps=125, held_out=200, students=256, dtype="float32")


def test_a_later_call_keeps_the_sizes_of_the_first(tmp_path):
    assert settle_sizes(tmp_path, sizes_for(3, "float32"), has_begun=False) == sizes_for(3, "float32")
    assert settle_sizes(tmp_path, SHORT, has_begun=False) == SHORT  # the first call ended before its problems
    assert settle_sizes(tmp_path, sizes_for(3, "float32"), has_begun=True) == SHORT


def test_a_dtype_that_is_typed_wins(tmp_path):
    settle_sizes(tmp_path, SHORT, has_begun=False)
    narrow = replace(SHORT, dtype="bfloat16")
    assert settle_sizes(tmp_path, sizes_for(3, "float32"), has_begun=True, dtype="bfloat16") == narrow
    assert settle_sizes(tmp_path, sizes_for(3, "float32"), has_begun=True) == narrow


@pytest.mark.parametrize("text", ["{", '{"kinds": 1}', "[]"])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(
        DataError, match=r"sizes\.json does not hold the sizes of a run .*: take another folder"
    ):
        settle_sizes(tmp_path, SHORT, has_begun=True)
