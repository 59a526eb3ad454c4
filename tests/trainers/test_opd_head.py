"""A student's divergence from a teacher that reads another prompt: values and gradients in float64."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt.models.distributions import HiddenStates, TopTokens
from rlt.models.logprobs import Request, add_token_query, own_head, token_values
from rlt.trainers.divergence import divergence_of
from rlt.trainers.opd_head import Against, TopTargets, WholeTargets, add_divergence

VOCABULARY = 29
"""Of the tokens; the student's table has 32 rows and the teacher's 37, as published models differ."""
SHARED, SAMPLED = 1.3, 0.7
PROMPT, TEACHER_PROMPT = [3, 5, 7], [11, 2, 13, 17, 5]
ROWS = [[4, 8, 9, 2], [20, 1]]
SHARE = 0.3


def model(rows: int, seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config).double().eval()


def plain(name: str, p: Tensor, q: Tensor) -> Tensor:
    """Return the divergence of (student's, teacher's) probabilities (N, K), as the formula is written."""
    if name == "forward_kl":
        return (q * (q / p).log()).sum(1)
    if name == "reverse_kl":
        return (p * (p / q).log()).sum(1)
    m = SHARE * q + (1 - SHARE) * p
    return (SHARE * q * (q / m).log() + (1 - SHARE) * p * (p / m).log()).sum(1)


def expected(student, teacher, name: str, support: str, renamed: tuple[int, int] | None) -> Tensor:
    """Return the summed divergence of all tokens: whole sequences one by one, all logits, probabilities."""
    total = torch.zeros((), dtype=torch.float64)
    for row in ROWS:
        with torch.no_grad():
            theirs = teacher(torch.tensor([TEACHER_PROMPT + row])).logits[0]
        ours = student(torch.tensor([PROMPT + row])).logits[0]
        p = (ours[len(PROMPT) - 1 : -1, :VOCABULARY] / SHARED).softmax(1)
        q = (theirs[len(TEACHER_PROMPT) - 1 : -1, :VOCABULARY] / SHARED).softmax(1)
        if renamed:
            order = list(range(VOCABULARY))
            a, b = renamed
            order[a], order[b] = b, a
            q = q[:, order]
        if support == "top_k":
            ids = q.topk(5, 1).indices
            p, q = p.gather(1, ids), q.gather(1, ids)
            p, q = (torch.cat([x, 1 - x.sum(1, keepdim=True)], 1) for x in (p, q))
        total = total + plain(name, p, q).sum()
    return total


def targets(teacher, support: str, renamed: tuple[int, int] | None):
    """Return what the stage reads of the teacher, through its own path."""
    requests = [
        Request(TEACHER_PROMPT + row, range(len(TEACHER_PROMPT), len(TEACHER_PROMPT + row))) for row in ROWS
    ]
    top = support == "top_k"
    extra = TopTokens(5, SHARED, VOCABULARY) if top else HiddenStates(VOCABULARY)
    found = token_values(
        teacher, requests, extra, temperature=SAMPLED, tokens_per_batch=64, device=torch.device("cpu")
    )
    first, second = (torch.cat([values[i] for values in found]) for i in (1, 2))
    if top:
        return TopTargets(first, second, is_whole=False)
    return WholeTargets(first, second, own_head(teacher, torch.device("cpu")), SHARED, renamed)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "js"])
@pytest.mark.parametrize(
    ("support", "renamed"),
    [("top_k", None), ("full", None), ("full", (6, 21))],
    ids=["top_k", "full", "renamed"],
)
def test_value_and_gradients_are_those_of_the_formula(name, support, renamed):
    student, teacher = model(32, 0), model(37, 1).requires_grad_(False)
    reference = deepcopy(student)
    for one in (student, teacher):
        add_token_query(one)
    add_divergence(student, SAMPLED)

    width, longest = len(PROMPT), max(map(len, ROWS))
    ids = torch.tensor([PROMPT + row + [0] * (longest - len(row)) for row in ROWS])
    mask = torch.tensor([[1] * (width + len(row)) + [0] * (longest - len(row)) for row in ROWS])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :width] = -100
    against = Against(targets(teacher, support, renamed), divergence_of(name, SHARE), SHARED, VOCABULARY)
    output = student(input_ids=ids, attention_mask=mask, labels=labels, against=against)
    loss = output.divergence.sum()
    loss.backward()

    exact = expected(reference, teacher, name, support, renamed)
    exact.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-9)
    assert exact.item() > 0.1
    for ours, theirs in zip(student.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-9)

    # What TRL's loss reads of the same pass is at the temperature of the samples, over the whole table.
    row, first = ROWS[0], len(PROMPT) - 1
    logits = reference(torch.tensor([PROMPT + row])).logits[0, first:-1] / SAMPLED
    expected_logprobs = logits.log_softmax(1)[range(len(row)), row]
    assert torch.allclose(output.log_probs[0, first:], expected_logprobs, rtol=0, atol=1e-9)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(output.entropy[0, first:], entropy, rtol=0, atol=1e-9)


def test_a_batch_without_labels_has_gradients_of_zero():
    student, teacher = model(32, 0), model(37, 1).requires_grad_(False)
    for one in (student, teacher):
        add_token_query(one)
    add_divergence(student, SAMPLED)
    head = own_head(teacher, torch.device("cpu"))
    nothing = WholeTargets(torch.zeros(0, 16).double(), torch.zeros(0).long(), head, SHARED, None)
    against = Against(nothing, divergence_of("js", SHARE), SHARED, VOCABULARY)
    ids = torch.tensor([PROMPT])
    output = student(input_ids=ids, labels=torch.full_like(ids, -100), against=against)
    output.divergence.sum().backward()
    assert output.divergence.tolist() == [[0.0, 0.0]]
    # The LM head has made nothing; what has run has a gradient, so that processes agree on what they reduce.
    grads = [p.grad for name, p in student.named_parameters() if not name.startswith("lm_head")]
    assert all(grad is not None and not grad.any() for grad in grads)
