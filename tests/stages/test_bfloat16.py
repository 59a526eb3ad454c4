"""Each strategy with two processes in bfloat16, at 4,096 positions: models of a run are their plain loads.

Stages of one strategy share a start. Head dimension 128 and theta 1e6 are those of Qwen2.5.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.stage_runs import later_win, rl_words, run_processes, sft_words, student_words, succeed, weights
from looking_at_models import buffers_of, logprobs_of
from transformers import AutoModelForCausalLM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LIMIT = 0.005
"""Nats a token, with weights in bfloat16."""
AUTOCAST_LIMIT = 0.05
"""The same, for float32 weights under autocast."""
STRATEGIES = ("zero3", *(pytest.param(name, marks=pytest.mark.long) for name in ("ddp", "zero2", "offload")))
SIZES = {
    "hidden_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "initializer_range": 0.05,
}
NOT_WHOLE = ("teacher_rl", "resumed", "lora", "score_traces")
"""Runs without a model of their own at the end."""
RATE, DECAY = 1e-7, 1.875e6
"""Typed where a run is resumed. Adam's part of a step, at most 3.2 times the rate, is too small to see."""
BFLOAT16 = ("model.dtype=bfloat16", "reward.dtype=bfloat16")


@pytest.fixture(scope="module")
def model(save_tiny, tiny_tokenizer, tmp_path_factory) -> Path:
    """Return a random Qwen2 in bfloat16; it is teacher, student and reference."""
    folder = save_tiny(tiny_tokenizer, tmp_path_factory.mktemp("bfloat16") / "model", **SIZES)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for name, parameter in plain.named_parameters():
        if name.endswith("bias"):  # made as zeros, which hide how they are added
            torch.nn.init.normal_(parameter, std=0.5)
    plain.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def traces(toy_problems: Path, tmp_path_factory) -> Path:
    """Return the toy problems as traces, to distil and to score."""
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    rows = [json.loads(line) for line in toy_problems.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**row, "explanation": row["reasoning_trace"]}) + "\n" for row in rows)
    )
    return path


@pytest.fixture(scope="module")
def plan(model: Path, traces: Path, toy_problems: Path):
    """Return a function that gives the words of each run under a strategy, into a folder."""

    def teacher_rl(output: Path, *changes: str) -> list[str]:
        usual = ["trainer.max_steps=2", "trainer.ref_sync_steps=2", "learning_rate=1e-3", *BFLOAT16]
        return rl_words(model, model, toy_problems, output, *usual, *changes)

    def student_rl(output: Path, *changes: str) -> list[str]:
        usual = ["run_cfg=student_rl", "correctness.grader=math", "trainer.max_steps=1"]
        words = teacher_rl(output, *usual, *changes)
        return [word for word in words if not word.startswith(("reward.", "student_model="))]

    def build(strategy: str, folder: Path) -> dict[str, list[str]]:
        sharded = strategy in ("zero3", "offload")
        student = f"reward.placement={'zero3' if sharded else 'replicated'}"
        changes = [student, "trainer.save_steps=1", "trainer.max_steps=2"]
        first = teacher_rl(folder / "teacher_rl", *changes)
        typed = [f"learning_rate={RATE}", f"trainer.weight_decay={DECAY}", "trainer.lr_scheduler_type=linear"]
        sft = [BFLOAT16[0], "trainer.max_steps=2", "learning_rate=1e-4"]
        runs = {
            "teacher_rl": first,
            "resumed": later_win(*first, "trainer.max_steps=3", "resume_from=latest", *typed),
            "teacher_sft": sft_words("teacher_sft", model, toy_problems, folder / "teacher_sft", *sft),
        }
        if strategy == "zero3":
            runs["student_sft"] = student_words(model, traces, folder / "student_sft", *sft)
            runs["student_rl"] = student_rl(folder / "student_rl")
            runs["lora"] = student_rl(folder / "lora", "model.lora.rank=4")
            runs["score_traces"] = [
                "run_cfg=score_traces",
                f"model_name_or_path={model}",
                f"student_model={model}",
                f"dataset_id_or_path={traces}",
                f"output_dir={folder / 'score_traces'}",
                "layout.student_prompt=default",
                "reward.placement=zero3",
                *BFLOAT16,
            ]
        return runs

    return build


@pytest.fixture(scope="module")
def looks(plan, tmp_path_factory):
    """Return a function that gives what both processes saw in each run of a strategy."""

    @cache
    def run(strategy: str) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
        folder = tmp_path_factory.mktemp(strategy)
        runs = plan(strategy, folder)
        (folder / "plan.json").write_text(json.dumps(runs))
        script = Path(__file__).with_name("looking_at_models.py")
        done = run_processes(
            strategy, [str(folder / "plan.json")], script=script, timeout=1500, precision="bf16"
        )
        succeed(done)
        seen = {name: [torch.load(folder / f"{name}.{rank}.pt") for rank in (0, 1)] for name in runs}
        return folder, seen

    return run


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def moved_reference(model: Path, checkpoint: Path) -> Any:
    """Return a plain model with the reference's weights of a checkpoint."""
    plain = load(model)
    plain.load_state_dict(weights(checkpoint / "reference"))
    return plain


def assert_same_buffers(look: dict[str, Any], plain: Any) -> None:
    expected = buffers_of(plain)
    assert look["buffers"].keys() == expected.keys()
    for name, buffer in expected.items():
        assert look["buffers"][name].dtype == buffer.dtype == torch.float32, name
        assert torch.equal(look["buffers"][name], buffer), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_models_of_a_run_are_plain_loads(strategy: str, looks, model: Path):
    limit = AUTOCAST_LIMIT if strategy == "ddp" else LIMIT
    folder, seen = looks(strategy)
    checkpoint = folder / "teacher_rl" / "checkpoint-2"
    given, after_two_steps, moved = load(model), load(checkpoint), moved_reference(model, checkpoint)
    models = {name: dict.fromkeys(look, given) for name, (look, _) in seen.items()}
    for name, role, plain in (
        ("teacher_rl", "policy_end", after_two_steps),
        ("teacher_rl", "reference_end", moved),
        ("resumed", "policy", after_two_steps),
        ("resumed", "reference", moved),
        ("resumed", "policy_end", load(folder / "teacher_rl")),
        ("resumed", "reference_end", moved_reference(model, checkpoint.with_name("checkpoint-3"))),
        *((name, "policy_end", load(folder / name)) for name in seen if name not in NOT_WHOLE),
    ):
        assert role in models[name]
        models[name][role] = plain
    expected_of = cache(logprobs_of)  # most of them are the same model
    for name, role in [(name, role) for name, roles in models.items() for role in roles]:
        expected = expected_of(models[name][role])
        for look in seen[name]:  # of each process
            assert_same_buffers(look[role], models[name][role])
            difference = (look[role]["logprobs"] - expected).abs().mean().item()
            assert difference <= limit, (name, role, difference)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_has_the_settings_that_were_typed(strategy: str, looks):
    """The third of three steps of a linear schedule has a third of the rate: 1e-7 / 3 * 1.875e6 = 1/16."""
    folder, seen = looks(strategy)
    before = weights(folder / "teacher_rl" / "checkpoint-2")
    for name, after in weights(folder / "teacher_rl").items():
        share = 1.0 if name.endswith("bias") or "norm" in name else 1 - RATE / 3 * DECAY
        torch.testing.assert_close(after.double(), share * before[name].double(), rtol=2**-7, atol=1e-6)
    for look in seen["resumed"]:
        groups = look["policy_end"]["optimizer"]
        assert [group["weight_decay"] for group in groups] == [DECAY, 0.0]
        assert [group["lr"] for group in groups] == [0.0, 0.0]  # the schedule still reaches what steps
