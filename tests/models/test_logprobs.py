"""Log-probabilities of chosen tokens, against whole logits in float64."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.models_tiny import expected_logprobs, tiny_model
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, CohereConfig, FalconH1Config, Gemma2Config
from transformers.models.granite import GraniteConfig
from transformers.models.hyperclovax import HyperCLOVAXConfig

from rlt.models.logprobs import Request, add_token_query, token_logprobs
from rlt.models.passes import split_batches, split_runs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain_model():
    return tiny_model()


@pytest.fixture(scope="module")
def model():
    model = tiny_model()
    add_token_query(model)
    return model


def random_ids(seed: int, num: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(517) for _ in range(num)]


def requests_of(seed: int) -> list[Request]:
    """Return requests of many lengths: few, many, first, last, unordered, repeated and no positions."""
    rng = random.Random(seed)
    requests = []
    for length in (2, 3, 17, 40, 40, 111, 5, 64):
        ids = random_ids(rng.randrange(1000), length)
        positions = sorted(rng.sample(range(1, length), rng.randint(1, length - 1)))
        requests.append(Request(ids, positions))
    long = random_ids(seed, 30)
    requests += [
        Request(long, [1]),
        Request(long, [29]),
        Request(long, range(1, 30)),
        Request(long, []),
        Request(long, [20, 3, 20]),
    ]
    rng.shuffle(requests)
    return requests


def scored(model, requests, temperature=1.0, tokens_per_batch=256, **kwargs):
    return token_logprobs(
        model, requests, temperature=temperature, tokens_per_batch=tokens_per_batch, device=CPU, **kwargs
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
@pytest.mark.parametrize("tokens_per_batch", [1, 100, 4096])
def test_values_are_those_of_float64_logits(model, plain_model, temperature, tokens_per_batch):
    requests = requests_of(3)
    results = scored(model, requests, temperature, tokens_per_batch)
    assert len(results) == len(requests)
    assert torch.cat(results).std() > 0.5  # values that a wrong place would not match
    for request, result in zip(requests, results, strict=True):
        assert (result.dtype, result.device, len(result)) == (torch.float32, CPU, len(request.positions))
        if not request.positions:
            continue
        expected = expected_logprobs(plain_model, request.ids, request.positions, temperature)
        torch.testing.assert_close(result.double(), expected, atol=2e-5, rtol=0)


def test_budget_changes_nothing(model):
    requests = requests_of(5)
    alone = scored(model, requests, tokens_per_batch=1)
    for budget in (64, 300, 10_000):
        for one, other in zip(alone, scored(model, requests, tokens_per_batch=budget), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_no_bit_depends_on_another_run(model):
    first, second, third = requests_of(5), requests_of(6)[:5], requests_of(7)[:1]
    runs = [len(first), len(second), len(third)]
    together = scored(model, [*first, *second, *third], runs=runs)
    apart = [value for part in (first, second, third) for value in scored(model, part)]
    assert all(torch.equal(one, other) for one, other in zip(together, apart, strict=True))
    swapped = scored(model, [*third, *second], runs=runs[:0:-1])
    assert all(
        torch.equal(one, other) for one, other in zip(swapped, [*apart[-1:], *apart[-6:-1]], strict=True)
    )


@pytest.mark.parametrize(
    "overrides",
    [
        {"tie_word_embeddings": True},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    ],
    ids=["tied", "sliding_window"],
)
def test_other_shapes_of_model(overrides):
    plain, model = tiny_model(**overrides), tiny_model(**overrides)
    add_token_query(model)
    requests = requests_of(7)
    for request, result in zip(requests, scored(model, requests, 0.7), strict=True):
        if request.positions:
            expected = expected_logprobs(plain, request.ids, request.positions, 0.7)
            torch.testing.assert_close(result.double(), expected, atol=2e-5, rtol=0)


def test_agrees_with_the_fused_head_of_trl(plain_model):
    from trl.trainer.utils import add_fused_lm_head

    ids = random_ids(1, 50)
    ours, theirs = tiny_model(), tiny_model()
    add_token_query(ours)
    add_fused_lm_head(theirs, temperature=0.7)
    tokens = torch.tensor([ids])
    labels = tokens.clone()
    labels[:, :20] = -100
    fused = theirs(input_ids=tokens, labels=labels, fused_lm_head=True).log_probs.flatten()
    (result,) = scored(ours, [Request(ids, range(20, 50))], 0.7)
    torch.testing.assert_close(result, fused[fused != 0].float(), atol=2e-5, rtol=0)


def test_nothing_wanted(model):
    assert scored(model, []) == []
    (result,) = scored(model, [Request([5, 6], [])])
    assert result.tolist() == []


def test_first_token_has_no_prediction(model):
    with pytest.raises(AssertionError, match="nothing predicts the first token"):
        scored(model, [Request([5, 6], [0, 1])])


def test_the_model_keeps_its_own_call(model, plain_model):
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(input_ids=ids).logits, plain_model(input_ids=ids).logits)
    assert model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0).shape == (1, 5)


def test_a_bias_of_the_head_counts():
    """Phi-like heads have one; the temperature divides it as well."""
    model = tiny_model()
    model.lm_head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features)
    add_token_query(model)
    request = Request(random_ids(6, 30), range(1, 30))
    (values,) = scored(model, [request], 0.7)
    with torch.no_grad():
        hidden_TD = model.model(torch.tensor([request.ids[:-1]])).last_hidden_state[0].double()
        logits_TV = hidden_TD @ model.lm_head.weight.double().T + model.lm_head.bias.double()
    expected_TV = torch.log_softmax(logits_TV / 0.7, dim=1)
    expected = [expected_TV[p - 1, request.ids[p]].item() for p in request.positions]
    assert values.tolist() == pytest.approx(expected, abs=2e-5)


def test_a_cpu_takes_small_passes_whatever_the_budget(model):
    shapes = []

    def counted(**kwargs):
        shapes.append(kwargs["input_ids"].shape)
        return model(**kwargs)

    requests = [Request([1, 2] * 150, [299])] * 60
    values = token_logprobs(counted, requests, temperature=1.0, tokens_per_batch=10**6, device=CPU)
    assert len(values) == sum(rows for rows, _ in shapes) == 60
    assert max(rows * tokens for rows, tokens in shapes) <= 8192 < 60 * 299


def test_short_ranks_run_dummies(model):
    """Under ZeRO-3 each forward pass is collective: all ranks run as many as the busiest one."""
    calls, asked = [], []

    def counted(**kwargs):
        calls.append(kwargs["input_ids"].shape)
        return model(**kwargs)

    def agree(count: int) -> int:
        asked.append(count)
        return 5

    requests = [Request([1, 2, 3], [1, 2])] * 2
    padded = token_logprobs(counted, requests, temperature=1.0, tokens_per_batch=3, device=CPU, agree=agree)
    assert (asked, len(calls)) == ([2], 5)
    assert all(
        torch.equal(a, b) for a, b in zip(padded, scored(model, requests, tokens_per_batch=3), strict=True)
    )
    calls.clear()
    assert token_logprobs(counted, [], temperature=1.0, tokens_per_batch=3, device=CPU, agree=agree) == []
    assert (asked, len(calls)) == ([2, 0], 5)


def test_log_softmax_of_a_bfloat16_model_is_in_float32():
    """Upstream 9: log-softmax in bfloat16 moved rewards by up to 0.07."""
    plain, model = tiny_model().bfloat16(), tiny_model().bfloat16()
    add_token_query(model)
    ids = random_ids(2, 60)
    (result,) = scored(model, [Request(ids, range(1, 60))], 0.7)
    logits_TV = plain(torch.tensor([ids])).logits[0]
    assert logits_TV.dtype == torch.bfloat16
    target_T = torch.tensor(ids[1:])

    def chosen(logprobs_TV):
        return logprobs_TV[:-1].gather(1, target_T.unsqueeze(1)).squeeze(1)

    right = chosen((logits_TV.double() / 0.7).log_softmax(1))
    wrong = chosen((logits_TV / 0.7).log_softmax(1)).double()
    assert (result.double() - right).abs().max() < 1e-3
    assert (result.double() - wrong).abs().max() > 1e-2


def test_nan_weights_give_nan():
    """Upstream 7: NaN became a normal-looking reward."""
    model = tiny_model()
    model.model.layers[1].mlp.up_proj.weight[3, 3] = math.nan
    add_token_query(model)
    (result,) = scored(model, [Request([1, 2, 3, 4], [1, 3])])
    assert result.isnan().all()


SIZE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SIZE, final_logit_softcapping=0.5),
        GraniteConfig(**SIZE),
        GraniteConfig(**SIZE, logits_scaling=0.5),
        CohereConfig(**SIZE, logit_scale=4.0),
        FalconH1Config(**SIZE, lm_head_multiplier=3.0, mamba_d_ssm=32, mamba_n_heads=2, mamba_d_head=16),
        HyperCLOVAXConfig(**SIZE, logits_scaling=2.0),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_whose_logits_are_more_than_the_output_of_their_head(config, dtype):
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # logits far enough apart for a cap and a scale to matter
        for weight in plain.parameters():
            weight.mul_(4)
    plain.to(dtype)
    ids, positions = [3, 4, 5, 6], [1, 2, 3]
    logits_TV = plain.double()(input_ids=torch.tensor([ids])).logits[0].double() / 0.7
    expected = logits_TV.log_softmax(-1)[[p - 1 for p in positions], [ids[p] for p in positions]]
    plain.to(dtype)
    add_token_query(plain)
    (result,) = scored(plain, [Request(ids, positions)], 0.7)
    tolerance = {"atol": 1e-5, "rtol": 1e-6} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
    torch.testing.assert_close(result.double(), expected, **tolerance)


@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 200))
@example(lengths=[50, 1, 1], budget=10)
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = split_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(order, reverse=True)


def test_batches_by_hand():
    assert split_batches([3, 10, 4, 4], 12) == [[1], [2, 3, 0]]
    assert split_batches([3, 10, 4, 4], 8) == [[1], [2, 3], [0]]
    assert split_batches([], 8) == []
    assert split_runs([3, 10, 4, 4], [1, 3], 12) == [[1], [2, 3], [0]]  # the first one shares with none
    assert split_runs([3, 4, 3, 10], [2, 2], 12) == [[3], [1, 0], [2]]


MEMORY = """
import resource, sys
import torch
sys.path.insert(0, sys.argv[1])
from helpers.models_tiny import tiny_model
from rlt.models.logprobs import Request, add_token_query, token_logprobs

torch.set_num_threads(1)
model = tiny_model(vocab=151_936, hidden_size=16, num_attention_heads=1, num_key_value_heads=1)
add_token_query(model)
ids = list(range(500))

def score(num):
    return token_logprobs(model, [Request(ids, range(436, 500))] * num, temperature=0.7,
                          tokens_per_batch=16 * 500, device=torch.device("cpu"))

score(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(score(16)) == 16
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_head_of_another_dtype():
    """Hidden states in bfloat16 and a head in float32, as TRL's `cast_lm_head_to_fp32` makes one."""
    mixed = tiny_model().bfloat16()
    head = mixed.lm_head.float()
    head.forward = lambda hidden: torch.nn.functional.linear(hidden.float(), head.weight)
    add_token_query(mixed)
    request = Request(random_ids(5, 40), range(1, 40))
    (values,) = token_logprobs(mixed, [request], temperature=0.7, tokens_per_batch=99, device=CPU)
    with torch.no_grad():
        hidden_TD = mixed.model(torch.tensor([request.ids[:-1]])).last_hidden_state[0].double()
        log_p_TV = torch.log_softmax(hidden_TD @ mixed.lm_head.weight.double().T / 0.7, dim=1)
    expected = [log_p_TV[p - 1, request.ids[p]].item() for p in request.positions]
    assert values.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_no_tensor_of_all_logits_is_held():
    """16 x 500 tokens x 151,936 entries in float32 would be 4.5 GiB, the 1,024 requested rows 594 MiB."""
    command = [sys.executable, "-c", MEMORY, str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200


def test_little_is_padded_where_lengths_vary_as_in_gsm8k(shared, qwen_tokenizer):
    lengths = []
    with open(shared / "data" / "gsm8k_train.jsonl", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            text = f"{row['question']}{row['reasoning_trace']}{row['solution']}"
            lengths.append(100 + len(qwen_tokenizer(text)["input_ids"]))  # the layout's own tokens
    assert len(lengths) > 1000
    for group in (lengths[:1024], lengths[:256], lengths[:64]):
        batches = split_batches(group, 32768 if len(group) > 64 else 4096)
        padded = sum(len(batch) * max(group[i] for i in batch) for batch in batches)
        assert 1 - sum(group) / padded <= 0.10
