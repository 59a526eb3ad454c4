"""The losses of on-policy distillation: by hand, and their gradients against autograd of the formulas."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from rlt.trainers.divergence import (
    divergence_of,
    forward_kl,
    js,
    reverse_kl,
    sampled_advantage,
    with_tail,
)

TEACHER, STUDENT = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()


def test_two_tokens_by_hand():
    assert forward_kl(STUDENT, TEACHER).item() == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert reverse_kl(STUDENT, TEACHER).item() == pytest.approx(0.25 * log(0.5) + 0.75 * log(1.5))
    # m = (0.375, 0.625): KL(T||m) = 0.5 ln(4/3) + 0.5 ln 0.8, KL(S||m) = 0.25 ln(2/3) + 0.75 ln 1.2
    half = 0.5 * (0.5 * log(4 / 3) + 0.5 * log(0.8)) + 0.5 * (0.25 * log(2 / 3) + 0.75 * log(1.2))
    assert js(STUDENT, TEACHER, 0.5).item() == pytest.approx(half)
    # a fifth of the teacher: m = 0.2 T + 0.8 S = (0.3, 0.7)
    fifth = 0.2 * (0.5 * log(5 / 3) + 0.5 * log(5 / 7)) + 0.8 * (0.25 * log(5 / 6) + 0.75 * log(15 / 14))
    assert js(STUDENT, TEACHER, 0.2).item() == pytest.approx(fifth)


def test_all_other_tokens_are_one():
    # 0.5 and 0.3 of five tokens: the rest has 0.2
    tail = with_tail(torch.tensor([[0.5, 0.3]]).log())
    assert tail.exp().tolist()[0] == pytest.approx([0.5, 0.3, 0.2])


def test_a_masked_entry_counts_nothing():
    masked = torch.tensor([[0.25, 0.75, 0.0]]).log()
    teacher = torch.tensor([[0.5, 0.5, 0.0]]).log()
    for name in ("forward_kl", "reverse_kl"):
        loss = divergence_of(name, 0.5)
        assert loss(masked, teacher).item() == pytest.approx(loss(STUDENT, TEACHER).item())
    assert js(masked, teacher, 0.5).item() == pytest.approx(js(STUDENT, TEACHER, 0.5).item())


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "js"])
def test_a_masked_entry_leaves_the_gradient_of_the_others(name):
    loss, open_teacher = divergence_of(name, 0.5), torch.tensor([[0.3, 1.0]]).log_softmax(1)
    grads = []
    for masked in (False, True):
        logits = torch.tensor([[0.0, 1.0]], requires_grad=True)
        nothing = torch.tensor([[-torch.inf]])
        student = torch.cat([logits, nothing], 1) if masked else logits
        teacher = torch.cat([open_teacher, nothing], 1) if masked else open_teacher
        loss(student.log_softmax(1), teacher).sum().backward()
        grads.append(logits.grad[0].tolist())
    assert grads[1] == pytest.approx(grads[0], abs=1e-7)
    assert any(abs(value) > 0.01 for value in grads[0])


def plain(name: str, share: float, student_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """Return a divergence from probabilities, as the formulas are written."""
    p, q = student_NV, teacher_NV
    if name == "forward_kl":
        return (q * (q / p).log()).sum()
    if name == "reverse_kl":
        return (p * (p / q).log()).sum()
    m = share * q + (1 - share) * p
    return (share * q * (q / m).log() + (1 - share) * p * (p / m).log()).sum()


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "js"])
@pytest.mark.parametrize("some", [False, True], ids=["all", "top_k"])
def test_gradients_are_those_of_the_formula(name: str, some: bool):
    torch.manual_seed(0)
    logits, others = (2 * torch.randn(6, 11, dtype=torch.float64) for _ in range(2))
    teacher_NV = others.softmax(1)
    top = teacher_NV.topk(4, 1)

    ours = logits.clone().requires_grad_()
    student = ours.log_softmax(1)
    pair = student, teacher_NV.log()
    if some:
        pair = with_tail(student.gather(1, top.indices)), with_tail(top.values.log())
    loss = divergence_of(name, 0.3)(*pair).sum()
    loss.backward()

    theirs = logits.clone().requires_grad_()
    p, q = theirs.exp() / theirs.exp().sum(1, keepdim=True), teacher_NV
    if some:
        p, q = p.gather(1, top.indices), top.values
        p, q = (torch.cat([x, 1 - x.sum(1, keepdim=True)], 1) for x in (p, q))
    expected = plain(name, 0.3, p, q)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-9)
    assert theirs.grad.abs().max() > 1e-2


def test_the_sampled_token_has_the_gradient_of_the_reverse_kl_on_average():
    torch.manual_seed(1)
    logits, others = (torch.randn(1, 7, dtype=torch.float64) for _ in range(2))
    teacher = others.log_softmax(1)
    exact = logits.clone().requires_grad_()
    p = exact.softmax(1)
    (p * (p.log() - teacher)).sum().backward()

    ours = logits.clone().requires_grad_()
    each = ours.log_softmax(1)  # every token of the vocabulary as if it had been drawn, by its probability
    advantage = sampled_advantage(each, teacher, torch.arange(7).unsqueeze(0))
    (-(each.exp().detach() * advantage * each).sum()).backward()
    assert torch.allclose(ours.grad, exact.grad, rtol=0, atol=1e-12)


def test_tokens_of_a_chunk_share_its_advantage():
    policy = torch.tensor([[-1.0, -2.0, -3.0, -4.0, -9.0]])
    teacher = torch.tensor([[-0.5, -4.0, -4.0, 0.0, 0.0]])
    chunks = torch.tensor([[0, 1, 1, 2, -1]])
    # -0.5 + 1, then twice -4 + (2 + 3), then 0 + 4, and nothing outside
    assert sampled_advantage(policy, teacher, chunks).tolist() == [[0.5, 1.0, 1.0, 4.0, 0.0]]
