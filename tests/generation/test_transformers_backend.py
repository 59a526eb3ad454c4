"""The transformers back end against transformers itself and independent float64 arithmetic."""

from __future__ import annotations

import random
from contextlib import nullcontext
from itertools import chain

import numpy as np
import pytest
import torch
from helpers.generation_tiny import tiny_model, tiny_tokenizer
from transformers import GenerationConfig, Qwen2ForCausalLM

from rlt.errors import GenerationError, NotFinite
from rlt.generation.transformers_backend import TransformersGenerator, _Nucleus
from rlt.generation.types import Sampling
from rlt.records import Completion

PROMPTS = [[5, 6, 7], [9] * 12, [200, 3], [17, 18, 19, 20, 21]]
SEEDS = [11, 12, 13, 14]
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return tiny_model(seed=0)


def make_generator(model: Qwen2ForCausalLM, batch_size: int = 4) -> TransformersGenerator:
    pad = TOKENIZER.pad_token_id
    return TransformersGenerator(lambda: nullcontext(model), pad, batch_size, decode=TOKENIZER.decode)


def scores(model: Qwen2ForCausalLM, prompt: list[int], completion: Completion) -> torch.Tensor:
    """Return float64 logits at the positions of the completion's tokens, from one unpadded forward pass."""
    ids = torch.tensor([prompt + list(completion.token_ids)])
    with torch.no_grad():
        return model(ids).logits[0, len(prompt) - 1 : -1].double()


def ids_of(groups: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group] for group in groups]


def test_greedy_equals_generate_of_transformers(model: Qwen2ForCausalLM) -> None:
    stop = TOKENIZER.eos_token_id
    ours = make_generator(model).generate(PROMPTS, 1, Sampling(0.0, 16, (stop,)), SEEDS)
    config = GenerationConfig(max_new_tokens=16, do_sample=False, eos_token_id=stop, pad_token_id=0)
    for prompt, (completion,) in zip(PROMPTS, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), generation_config=config)[0, len(prompt) :]
        assert list(completion.token_ids) == theirs.tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_logprobs_equal_float64_log_softmax(model: Qwen2ForCausalLM, temperature: float) -> None:
    groups = make_generator(model).generate(PROMPTS, 3, Sampling(temperature, 12, ()), SEEDS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            # At temperature 0 vLLM reports the distribution before the maximum is taken, and so do we.
            logits = scores(model, prompt, completion) / (temperature or 1.0)
            exact = logits - torch.logsumexp(logits, -1, keepdim=True)
            picked = exact.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(completion.logprobs).double(), picked, atol=1e-4)


def test_shaped_sampling_keeps_to_its_tokens(model: Qwen2ForCausalLM) -> None:
    shaped = Sampling(0.9, 12, (), top_p=0.8, top_k=5, min_p=0.05, repetition_penalty=1.4)
    groups = make_generator(model).generate(PROMPTS, 4, shaped, SEEDS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            logits_TV = scores(model, prompt, completion)
            for step, (token, logprob) in enumerate(
                zip(completion.token_ids, completion.logprobs, strict=True)
            ):
                kept = _shape(logits_TV[step].numpy(), prompt + list(completion.token_ids[:step]))
                assert logprob == pytest.approx(float(np.log(kept[token] / kept.sum())), abs=1e-4)


def _shape(logits_V: np.ndarray, seen: list[int]) -> np.ndarray:
    """Return probabilities after penalty 1.4, temperature 0.9, min_p 0.05, top_k 5, top_p 0.8, by hand."""
    logits_V = logits_V.copy()
    for token in set(seen):
        logits_V[token] = logits_V[token] / 1.4 if logits_V[token] > 0 else logits_V[token] * 1.4
    p = np.exp((logits_V - logits_V.max()) / 0.9)
    p[p < 0.05 * p.max()] = 0
    order = np.argsort(-p)
    p[order[5:]] = 0
    p /= p.sum()
    before = np.concatenate([[0.0], np.cumsum(p[order])[:-1]])
    p[order[before >= 0.8]] = 0
    return p


@pytest.mark.parametrize("spread", [0.0, 0.3, 4.0, 9.0])
def test_the_nucleus_is_that_of_sorted_float64_probabilities(spread: float) -> None:
    """Flat and steep distributions, equal logits, and tokens that something else has excluded."""
    rng = np.random.default_rng(0)
    logits_BV = rng.normal(size=(3, 3000)) * spread
    logits_BV[0, 100:200] = logits_BV[0, 100]
    logits_BV[1, ::2] = -np.inf
    for top_p in (0.05, 0.5, 0.9, 0.999):
        found_BV = _Nucleus(top_p)(None, torch.tensor(logits_BV, dtype=torch.float32)).numpy()
        for logits_V, found_V in zip(logits_BV.astype(np.float32).astype(np.float64), found_BV, strict=True):
            p = np.exp(logits_V - logits_V.max())
            p = np.sort(p / p.sum())[::-1]
            kept = int((np.cumsum(p) - p < top_p - 1e-6).sum())
            at_most = int((np.cumsum(p) - p < top_p + 1e-6).sum())
            finite = np.isfinite(found_V)
            assert kept <= finite.sum() <= at_most
            assert logits_V[finite].min() >= logits_V[~finite].max(initial=-np.inf)


def test_nothing_of_the_models_generation_config_leaks() -> None:
    model = tiny_model(seed=0)
    plain = make_generator(model).generate(PROMPTS, 1, Sampling(0.0, 16, ()), SEEDS)
    own = GenerationConfig(
        do_sample=True,
        top_k=3,
        top_p=0.5,
        repetition_penalty=2.0,
        eos_token_id=list(range(200)),
        max_length=4,
    )
    model.generation_config = own
    model.train()
    assert make_generator(model).generate(PROMPTS, 1, Sampling(0.0, 16, ()), SEEDS) == plain
    assert model.generation_config is own
    assert model.training


def test_samples_depend_on_their_seed_alone(model: Qwen2ForCausalLM) -> None:
    sampling = Sampling(0.8, 12, (TOKENIZER.eos_token_id,))
    first = make_generator(model).generate(PROMPTS, 3, sampling, SEEDS)
    assert make_generator(model).generate(PROMPTS, 3, sampling, SEEDS) == first
    assert all(len(set(group)) == 3 for group in ids_of(first))
    # Other batch sizes and other company: the same tokens.
    assert ids_of(make_generator(model, batch_size=5).generate(PROMPTS, 3, sampling, SEEDS)) == ids_of(first)
    alone = make_generator(model).generate(PROMPTS[1:2], 3, sampling, SEEDS[1:2])
    assert ids_of(alone)[0] == ids_of(first)[1]
    neighbour = make_generator(model).generate(PROMPTS[1:2], 3, sampling, [SEEDS[1] + 1])
    assert not set(ids_of(neighbour)[0]) & set(ids_of(first)[1])


def test_global_random_generators_stay_untouched(model: Qwen2ForCausalLM) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    make_generator(model).generate(PROMPTS, 2, Sampling(0.7, 8, ()), SEEDS)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_frequencies_follow_the_distribution(model: Qwen2ForCausalLM) -> None:
    prompt, count = [5, 6, 7], 4000
    (group,) = make_generator(model, batch_size=500).generate([prompt], count, Sampling(0.5, 1, ()), [0])
    with torch.no_grad():
        probs = (model(torch.tensor([prompt])).logits[0, -1].double() / 0.5).softmax(-1)
    drawn = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=len(probs))
    likeliest = probs.topk(5)
    for probability, token in zip(*likeliest, strict=True):
        error = 4 * (probability * (1 - probability) / count).sqrt()
        assert abs(drawn[token] / count - probability) < error


def test_stop_id_ends_and_is_included(model: Qwen2ForCausalLM) -> None:
    sampling = Sampling(1.0, 60, ())
    free = make_generator(model).generate(PROMPTS, 2, sampling, SEEDS)
    stop = free[0][0].token_ids[10]
    stopped = make_generator(model).generate(PROMPTS, 2, Sampling(1.0, 60, (stop,)), SEEDS)
    for long, short in zip(chain(*free), chain(*stopped), strict=True):
        if stop in long.token_ids:
            end = long.token_ids.index(stop) + 1
            assert (short.token_ids, short.finish_reason) == (long.token_ids[:end], "stop")
        else:
            assert (short.token_ids, short.finish_reason) == (long.token_ids, "length")
        assert len(short.logprobs) == len(short.token_ids)
    assert {c.finish_reason for c in free[0]} == {"length"}


def test_stop_string_ends_after_the_token_that_completes_it(model: Qwen2ForCausalLM) -> None:
    (free,) = make_generator(model).generate([PROMPTS[0]], 2, Sampling(1.0, 60, ()), [5])
    text = TOKENIZER.decode(free[0].token_ids[20:22])
    sampling = Sampling(1.0, 60, (), stop_strings=(text,))
    (stopped,) = make_generator(model).generate([PROMPTS[0]], 2, sampling, [5])
    assert stopped[0].finish_reason == "stop"
    assert stopped[0].token_ids == free[0].token_ids[: len(stopped[0].token_ids)]
    assert len(stopped[0].token_ids) <= 22
    assert text in TOKENIZER.decode(stopped[0].token_ids)
    assert text not in TOKENIZER.decode(stopped[0].token_ids[:-1])


def test_stop_string_without_decode_is_refused(model: Qwen2ForCausalLM) -> None:
    generator = TransformersGenerator(lambda: nullcontext(model), 0, 4)
    with pytest.raises(GenerationError, match="need text"):
        generator.generate(PROMPTS, 1, Sampling(1.0, 4, (), stop_strings=("x",)), SEEDS)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_nan_logits_are_refused(top_p: float) -> None:
    model = tiny_model(seed=0)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(NotFinite, match="NaN"):
        make_generator(model).generate(PROMPTS, 1, Sampling(1.0, 4, (), top_p=top_p), SEEDS)
