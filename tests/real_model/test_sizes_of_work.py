"""How much is done in how many hours, and that a folder keeps its sizes."""

import pytest

from rlt.errors import DataError
from rlt.real_model.sizes import NAME, SHORT, Sizes, settle_sizes, sizes_for


def test_three_hours_of_two_cores():
    assert sizes_for(3) == Sizes(kinds=60, warm_up_steps=15, rl_steps=125, held_out=39, students=32)
    assert sizes_for(3).warm_up_rows == 16 * 15


def test_little_and_much_time_stay_within_what_makes_sense():
    least, most = sizes_for(0.01), sizes_for(1000)
    assert least == Sizes(kinds=8, warm_up_steps=4, rl_steps=125, held_out=8, students=16)
    assert most == Sizes(kinds=200, warm_up_steps=100, rl_steps=125, held_out=200, students=256)


def test_a_later_call_keeps_the_sizes_of_the_first(tmp_path):
    assert settle_sizes(tmp_path, sizes_for(3), has_begun=False) == sizes_for(3)
    assert settle_sizes(tmp_path, SHORT, has_begun=False) == SHORT  # the first call ended before its problems
    assert settle_sizes(tmp_path, sizes_for(3), has_begun=True) == SHORT


@pytest.mark.parametrize("text", ["{", '{"kinds": 1}', "[]"])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(
        DataError, match=r"sizes\.json does not hold the sizes of a run .*: take another folder"
    ):
        settle_sizes(tmp_path, SHORT, has_begun=True)
