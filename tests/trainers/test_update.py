"""One optimizer step against an independent implementation of method section 4, which pads nothing.

The released recipe in two real processes (DDP, ZeRO-2 and ZeRO-3, gloo) in float32; released and modern in
one process, in float64 too. 2 prompts x 4 completions, accumulation 2. Only the learning rate is not the
recipe's: at 1e-6 a missing update could not be told from rounding. The reference starts near the policy, not
on it, so that the KL term counts in the loss of the first step.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.stage_runs import eval_rows, mix, rl_words, run_here, run_processes, succeed, train_rows, weights
from recorded_step import RecordingTrainer
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlt.rundir.samples import read_samples

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-3
ONE_STEP = ["trainer.max_steps=1", "max_completion_length=96"]
ONE_BY_ONE = ["per_device_train_batch_size=1", "max_prompt_length=700"]
"""So that passes of short rows are joined, with as many tokens as a row may have."""


# ---- the independent implementation: one sequence at a time, no padding, float64 ------------------


def completion_logprobs(model, prompt: list[int], completion: list[int]) -> Tensor:
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    chosen = torch.log_softmax(logits / 0.7, -1)
    return chosen[range(len(completion)), completion]


def group_advantages(rewards: list[float]) -> Tensor:
    r = torch.tensor(rewards, dtype=torch.float64)
    return (r - r.mean()) / (r.std(unbiased=True) + 1e-4)


def step_advantages(samples: list[dict]) -> Tensor:
    return torch.cat([group_advantages([s["reward"] for s in samples[i : i + 4]]) for i in (0, 4)])


def loss_of_step(
    policy, reference, samples: list[dict], advantages: Tensor, *, as_read: bool = False
) -> Tensor:
    """Return the released recipe's loss; `as_read`: with the reference's values that the trainer has read."""
    total = torch.zeros((), dtype=torch.float64)
    for sample, advantage in zip(samples, advantages, strict=True):
        ours = completion_logprobs(policy, sample["prompt"], sample["completion"])
        with torch.no_grad():
            theirs = completion_logprobs(reference, sample["prompt"], sample["completion"])
        assert (theirs - sample["reference"]).abs().max() < 5e-5  # rounding in float32
        theirs = sample["reference"].double() if as_read else theirs
        ratio = torch.exp(ours - ours.detach())
        k3 = torch.exp(theirs - ours) - (theirs - ours) - 1
        total = total + (-ratio * advantage + 0.04 * k3).mean()
    return total / len(samples)


def modern_advantages(samples: list[dict]) -> Tensor:
    """Groups have their own means, and the batch one deviation (scale_rewards=batch)."""
    r = torch.tensor([s["reward"] for s in samples], dtype=torch.float64)
    return (r - r.view(2, 4).mean(1).repeat_interleave(4)) / (r.std(unbiased=True) + 1e-4)


def modern_loss_of_step(policy, samples: list[dict], advantages: Tensor) -> Tensor:
    """Every token weighs the same (dapo), times p_policy / p_engine, which is 2 at most."""
    total = torch.zeros((), dtype=torch.float64)
    for sample, advantage in zip(samples, advantages, strict=True):
        ours = completion_logprobs(policy, sample["prompt"], sample["completion"])
        engine = torch.tensor(sample["sampled"]).double()  # float32, as TRL holds it
        correction = torch.exp(ours.detach() - engine).clamp(max=2.0)
        total = total - (correction * torch.exp(ours - ours.detach()) * advantage).sum()
    return total / sum(len(s["completion"]) for s in samples)


def first_adamw_step(value: Tensor, gradient: Tensor, norm: float) -> Tensor:
    clipped = gradient * min(1.0, 1.0 / (norm + 1e-6))
    m, v = 0.1 * clipped, 0.001 * clipped**2
    return value - LEARNING_RATE * (m / 0.1) / (torch.sqrt(v / 0.001) + 1e-8)


# ---- the real one ---------------------------------------------------------------------------------


def load_double(folder: Path, tensors: dict[str, Tensor] | None = None):
    from transformers import AutoModelForCausalLM

    # Not `eager`, whose softmax is in float32; cast afterwards, so that rotary frequencies are float32's.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    if tensors is not None:
        model.load_state_dict(tensors)
    return model.double().eval()


@pytest.fixture(scope="module")
def nearby(tiny_teacher, tmp_path_factory) -> Path:
    """Return a checkpoint whose reference is the teacher with noise of 0.005 on every weight."""
    folder = tmp_path_factory.mktemp("nearby") / "checkpoint-0"
    (folder / "reference").mkdir(parents=True)
    generator = torch.Generator().manual_seed(3)
    start = load_file(tiny_teacher / "model.safetensors")
    noisy = {n: w + 0.005 * torch.randn(w.shape, generator=generator) for n, w in start.items()}
    save_file(noisy, folder / "reference" / "m.safetensors")
    index = {"weight_map": dict.fromkeys(noisy, "m.safetensors")}
    (folder / "reference" / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def recorded(tiny_teacher, tiny_student, toy_problems, nearby, tmp_path_factory) -> Path:
    """Return the folder of a two-process run of two steps, its first step written down in `record/`."""
    folder = tmp_path_factory.mktemp("update")
    (folder / "record").mkdir()
    held_out = folder / "held_out.jsonl"
    held_out.write_text("".join(toy_problems.read_text().splitlines(keepends=True)[:5]))
    changes = ["trainer.max_steps=2", "trainer.save_steps=1", "trainer.ref_sync_steps=1"]
    changes += [f"learning_rate={LEARNING_RATE}", f"evaluation.path={held_out}", "evaluation.steps=2"]
    changes += ["evaluation.num_generations=2", "max_completion_length=96"]
    words = rl_words(tiny_teacher, tiny_student, toy_problems, folder / "run", *changes)
    script = Path(__file__).with_name("recorded_step.py")
    paths = {"RLT_TEST_RECORD": str(folder / "record"), "RLT_TEST_REFERENCE": str(nearby)}
    succeed(run_processes("ddp", words, script=script, **paths))
    return folder


@pytest.fixture(scope="module")
def samples(recorded: Path) -> list[dict]:
    """Return the eight samples of the first step, process by process."""
    return [s for rank in (0, 1) for s in torch.load(recorded / "record" / f"samples_{rank}.pt")]


@pytest.fixture(scope="module")
def expected(samples, tiny_teacher, nearby) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of the independent implementation."""
    policy = load_double(tiny_teacher)
    reference = load_double(tiny_teacher, weights(nearby / "reference"))
    loss = loss_of_step(policy, reference, samples, step_advantages(samples))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in policy.named_parameters()}


def norm_of(gradients: dict[str, Tensor]) -> float:
    return torch.sqrt(sum((g.double() ** 2).sum() for g in gradients.values())).item()


def test_the_step_is_worth_testing(samples):
    assert [s["problem"] for s in samples[:4]] == [samples[0]["problem"]] * 4
    assert samples[4]["problem"] != samples[0]["problem"]
    assert len({len(s["completion"]) for s in samples}) > 1  # or the mean per sequence could not be told
    assert len({s["reward"] for s in samples}) == 8


def test_advantages(recorded, samples):
    by_hand = step_advantages(samples)
    table = read_samples(recorded / "run" / "samples" / "step_000001.parquet")
    assert [row["reward"] for row in table] == [s["reward"] for s in samples]
    assert [row["advantage"] for row in table] == pytest.approx(by_hand.tolist(), abs=1e-5)


def test_loss(recorded, expected):
    backward = [torch.load(recorded / "record" / f"backward_{rank}.pt") for rank in (0, 1)]
    mean_of_ranks = sum(sum(record["losses"]) for record in backward) / 2
    assert mean_of_ranks == pytest.approx(expected[0], abs=1e-5)
    assert train_rows(recorded / "run")[1]["loss"] == pytest.approx(expected[0], abs=1e-5)
    assert expected[0] > 1e-3  # the KL term; the advantages add up to zero


def test_gradients(recorded, expected):
    for rank in (0, 1):
        gradients = torch.load(recorded / "record" / f"backward_{rank}.pt")["gradients"]
        assert gradients.keys() == expected[1].keys()
        worst = max((gradients[n].double() - expected[1][n]).abs().max().item() for n in gradients)
        assert worst < 1e-5
    norm = norm_of(expected[1])
    assert norm > 1  # so that clipping matters
    assert train_rows(recorded / "run")[1]["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_no_pass_is_wider_than_its_own_rows(recorded, samples):
    """TRL pads to the longest completion of the batch: the short rows were computed at 90 tokens too."""
    by_rank = [torch.load(recorded / "record" / f"backward_{rank}.pt")["passes"] for rank in (0, 1)]
    learning = [[p for p in passes if p["learns"]] for passes in by_rank]
    assert [len(passes) for passes in learning] == [2, 2]
    lengths = sorted(len(s["prompt"]) + len(s["completion"]) for s in samples)
    assert sorted(n for passes in learning for p in passes for n in p["real"]) == lengths
    prompts = [len(s["prompt"]) for s in samples]
    for passes in learning:
        assert all(p["shape"][1] <= max(p["real"]) + max(prompts) - min(prompts) for p in passes)
    first, second = zip(*learning, strict=True)  # of both processes, at the same time
    assert min(min(p["real"]) for p in first) >= max(max(p["real"]) for p in second)


def test_passes_of_the_reference_compute_what_is_asked_for(recorded, samples):
    for rank in (0, 1):
        passes = torch.load(recorded / "record" / f"backward_{rank}.pt")["passes"]
        shapes = [p["shape"] for p in passes if p["model"] == "reference"]
        assert sum(rows for rows, _ in shapes) == 4
        # The last token predicts nothing that is asked for. A pass of few tokens may hold some padding.
        lengths = [len(s["prompt"]) + len(s["completion"]) - 1 for s in samples[4 * rank : 4 * rank + 4]]
        assert max(width for _, width in shapes) == max(lengths)
        assert sum(rows * width for rows, width in shapes) < 4 * (max(lengths) + 1)


def test_weights_and_reference_after_the_step(recorded, expected, tiny_teacher, nearby):
    checkpoint = recorded / "run" / "checkpoint-1"
    start, old_reference = weights(tiny_teacher), weights(nearby / "reference")
    policy, reference = weights(checkpoint), weights(checkpoint / "reference")
    norm = norm_of(expected[1])
    undecided = total = 0
    for name, gradient in expected[1].items():
        new = first_adamw_step(start[name].double(), gradient, norm)
        mixed = 0.9 * new + 0.1 * old_reference[name].double()
        # Adam's first step is the gradient's sign: not defined by a gradient within rounding of zero.
        sure = (gradient == 0) | (gradient.abs() > 1e-4)
        undecided, total = undecided + int((~sure).sum()), total + sure.numel()
        assert ((policy[name] - new).abs()[sure] < 1e-6).all(), name
        assert ((reference[name] - mixed).abs()[sure] < 1e-6).all(), name
    assert undecided < 0.1 * total
    exact = mix(policy, old_reference)  # for all elements, from the weights that the run arrived at
    assert max((reference[n] - exact[n]).abs().max().item() for n in exact) < 1e-6


def test_evaluation_on_two_processes_counts_each_problem_once(recorded):
    table = read_samples(recorded / "run" / "samples" / "eval_step_000002.parquet")
    seen = sorted((row["problem_id"], row["sample_index"]) for row in table)
    problems = sorted({row["problem_id"] for row in table})
    assert seen == [(problem, sample) for problem in problems for sample in (0, 1)]
    assert len(problems) == 5
    mean = sum(row["reward"] for row in table) / 10
    assert eval_rows(recorded / "run")[2]["eval_reward"] == pytest.approx(mean, rel=1e-9)


# ---- sharded, in one process, modern, in float64 --------------------------------------------------


def assert_gradients(gradients: dict[str, Tensor], policy, within: float) -> None:
    expected = {name: p.grad for name, p in policy.named_parameters()}
    assert gradients.keys() == expected.keys()
    worst = max((gradients[n].double() - expected[n]).abs().max().item() for n in gradients)
    assert worst < within
    assert norm_of(expected) > 0.1  # or it would say little


def assert_joined(record: dict, of: int) -> None:
    rows = [p["shape"][0] for p in record["passes"] if p["learns"]]
    assert sum(rows) == of
    assert 2 <= len(rows) < of, rows


@pytest.mark.parametrize(
    ("strategy", "variables"),
    [
        pytest.param("zero2", {}, marks=pytest.mark.long),
        ("zero3", {}),
        pytest.param("zero3", {"RLT_TEST_OWN_HEAD": "1"}, marks=pytest.mark.long),
    ],
    ids=["zero2", "zero3", "zero3 with the model's own head"],
)
def test_gradients_under_zero(
    strategy, variables, tiny_teacher, tiny_student, toy_problems, nearby, tmp_path
):
    words = rl_words(tiny_teacher, tiny_student, toy_problems, tmp_path / "run", *ONE_STEP, *ONE_BY_ONE)
    script = Path(__file__).with_name("recorded_step.py")
    paths = {"RLT_TEST_RECORD": str(tmp_path), "RLT_TEST_REFERENCE": str(nearby)}
    succeed(run_processes(strategy, words, script=script, **paths, **variables))
    samples = [s for rank in (0, 1) for s in torch.load(tmp_path / f"samples_{rank}.pt")]
    policy = load_double(tiny_teacher)
    reference = load_double(tiny_teacher, weights(nearby / "reference"))
    loss = loss_of_step(policy, reference, samples, step_advantages(samples))
    loss.backward()
    backward = [torch.load(tmp_path / f"backward_{rank}.pt") for rank in (0, 1)]
    assert sum(sum(record["losses"]) for record in backward) / 2 == pytest.approx(loss.item(), abs=1e-5)
    for record in backward:
        assert_gradients(record["gradients"], policy, 1e-5)
        if not variables:  # the model's own forward is called for its head, too
            assert_joined(record, of=4)


class DoubleHead:
    """TRL's LM head in the dtype of the model: its own is in float32 whatever that is (4e-7 in gradients)."""

    @staticmethod
    def apply(hidden: Tensor, weight: Tensor, bias: None, labels: Tensor, temperature: float, *_) -> tuple:
        """Return log-probabilities and entropy of each position."""
        assert bias is None, "the tiny model's head has none"
        logprobs = torch.log_softmax(hidden @ weight.T / temperature, -1)
        chosen = logprobs.gather(1, labels.unsqueeze(1)).squeeze(1)
        return chosen, -(logprobs.exp() * logprobs).sum(-1), None, None, None


MODERN = ["recipe=modern"]
IN_UPDATE = ["reward.kl_estimator=student_nll"]
"""Nothing reads the policy's log-probabilities but the correction, which is then made in the update."""


@pytest.mark.parametrize(
    ("changes", "within"),
    [([], 1e-7), (MODERN, 1e-5), ([*MODERN, *IN_UPDATE], 1e-7)],
    ids=["released in float64", "modern", "modern in float64, corrected in the update"],
)
def test_one_process(
    changes, within, tiny_teacher, tiny_student, toy_problems, nearby, tmp_path, monkeypatch
):
    monkeypatch.setattr("rlt.stages.teacher_rl.TeacherRLTrainer", RecordingTrainer)
    monkeypatch.setenv("RLT_TEST_RECORD", str(tmp_path))
    monkeypatch.setenv("RLT_TEST_REFERENCE", str(nearby))
    monkeypatch.setenv("RLT_TEST_NOISE", "1.5")
    is_double, is_modern = within < 1e-6, "recipe=modern" in changes
    if is_double:
        monkeypatch.setenv("RLT_TEST_DOUBLE", "1")
        monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", DoubleHead)
    words = [*ONE_STEP, *ONE_BY_ONE, *changes]
    run_here(rl_words(tiny_teacher, tiny_student, toy_problems, tmp_path / "run", *words))
    samples = torch.load(tmp_path / "samples_0.pt")
    backward = torch.load(tmp_path / "backward_0.pt")
    advantages = modern_advantages(samples) if is_modern else step_advantages(samples)
    in_float32 = torch.tensor([s["advantage"] for s in samples], dtype=torch.float64)
    assert in_float32.tolist() == pytest.approx(advantages.tolist(), abs=1e-5)
    if is_double:  # advantages and what is read without gradients are float32 in any case
        advantages = in_float32
    policy = load_double(tiny_teacher)
    if is_modern:
        loss = modern_loss_of_step(policy, samples, advantages)
    else:
        reference = load_double(tiny_teacher, weights(nearby / "reference"))
        loss = loss_of_step(policy, reference, samples, advantages, as_read=is_double)
    loss.backward()
    assert sum(backward["losses"]) == pytest.approx(loss.item(), abs=within)
    assert_gradients(backward["gradients"], policy, within)
    assert_joined(backward, of=8)
