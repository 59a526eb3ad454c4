"""What a teacher makes of a completion for which its context has no room."""

import pytest
import torch

from rlt.errors import GenerationError
from rlt.formats.place import Place
from rlt.trainers.opd_teacher import _refuse_foreign
from rlt.trainers.opd_view import fit, request, view_of


def test_a_place_beyond_the_context_has_no_token(caplog):
    place = Place(list(range(10)), [(slice(0, 1), slice(8, 9)), (slice(1, 2), slice(9, 10))])
    assert fit(place, None) is fit(place, 10) is place
    short = fit(place, 9)
    assert (short.ids, short.chunks) == (list(range(9)), [])
    assert "a completion has 10 tokens in the teacher's sequence, of 9 at most" in caplog.text
    view = view_of(2, short, (torch.zeros(len(request(short).positions)),))
    assert not view.counts_C("sampled").any()


def test_tokens_that_the_student_has_not_are_one_sentence():
    found = [(torch.zeros(1), torch.zeros(1, 2), torch.tensor([[3, 7]]))]
    _refuse_foreign(found, 8)
    with pytest.raises(GenerationError, match=r"token 7 among its opd\.top_k likeliest, and both"):
        _refuse_foreign(found, 7)
