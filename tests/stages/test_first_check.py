"""The check before the first step at 3,000 tokens, against a real vLLM server in bfloat16.

A rounded or a shifted rotary table is right for short texts: at the end of the context the two sides differ
by about 0.5 nats a token, after 64 tokens by rounding.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.stage_runs import run_here, run_processes, succeed, train_rows

import rlt.stages.rl as stage
from rlt.errors import GenerationError, ModelError

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]
PROMPT, COMPLETION = 3000, 72
LENGTH = PROMPT + COMPLETION


@pytest.fixture(scope="module")
def long_model(tiny_tokenizer, save_tiny, tmp_path_factory) -> Path:
    """Return a Qwen2 whose heads and rotary base are those of Qwen2.5, so that bfloat16 angles are wrong."""
    return save_tiny(
        tiny_tokenizer,
        tmp_path_factory.mktemp("long") / "model",
        hidden_size=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        max_position_embeddings=4096,
        initializer_range=0.08,
    )


@pytest.fixture(scope="module")
def long_words(long_model: Path, tmp_path_factory) -> Iterator[Any]:
    """Return a function that gives the words of a run with prompts of 3,000 tokens on one real server."""
    pytest.importorskip("vllm")
    from rlt.config.compose import compose
    from rlt.launch.server import running_servers

    folder = tmp_path_factory.mktemp("long_run")
    problems = folder / "problems.jsonl"
    # Texts of many symbols: where a text repeats itself, wrong positions change little.
    rng = random.Random(1)
    symbols = [s for s in map(chr, range(33, 127)) if s not in "<|>"]
    rows = [{"question": "".join(rng.choices(symbols, k=2750)), "solution": str(i)} for i in range(4)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model_name_or_path": long_model,
        "student_model": long_model,
        "dataset_id_or_path": problems,
        "layout.student_prompt": "default",
        "max_prompt_length": PROMPT,
        "max_completion_length": COMPLETION,
        "num_generations": 2,
        "train_batch_size": 4,
        "per_device_train_batch_size": 1,
        "trainer.max_steps": 2,
        "trainer.save_steps": 0,
        "report_to": "null",
    }
    usual = ["run_cfg=teacher_rl", *(f"{key}={value}" for key, value in settings.items())]
    with ExitStack() as stack:
        try:
            servers = stack.enter_context(
                running_servers(compose([*usual, f"output_dir={folder / 'server'}"]))
            )
        except GenerationError as error:
            if "Illegal instruction" in str(error):
                pytest.skip("vLLM's bfloat16 attention does not run on this CPU")
            raise
        usual.append(f"generation.servers=[{servers[0].address}]")
        yield lambda output, *changes: [*usual, f"output_dir={output}", *changes]


def test_a_healthy_run_is_told_of(long_words, tmp_path: Path):
    output = run_here(long_words(tmp_path / "run", "trainer.max_steps=1", "generation.top_p=0.9"))
    assert "before the first step: engine and trainer agree up to the end" in (output / "log.txt").read_text()
    found = json.loads((output / "run.json").read_text())["first_check"]
    assert found["limit"] == 0.05
    after = [(c["model"], c["after_tokens"], c["tokens"]) for c in found["comparisons"]]
    assert after == [(m, n, 64) for n in (LENGTH - 64, 64) for m in ("policy", "reference")]
    assert all(0 < c["mean"] < 0.04 for c in found["comparisons"]), found


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("policy", "learning_rate=1e-6"),
        pytest.param("policy", "model.lora.rank=4", marks=pytest.mark.long),
        ("reference", "learning_rate=1e-6"),
    ],
)
def test_rounded_frequencies_in_the_trainer(long_words, tmp_path: Path, monkeypatch, model: str, change: str):
    make_engine = stage.make_engine
    if "lora" in change:
        pytest.importorskip("peft")

    def make_engine_and_round(trainer: Any, **kwargs: Any) -> Any:
        module = trainer.policy if model == "policy" else trainer.ref_model
        (rotary,) = (part for name, part in module.named_modules() if name.endswith("rotary_emb"))
        rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16)
        return make_engine(trainer, **kwargs)

    monkeypatch.setattr(stage, "make_engine", make_engine_and_round)
    with pytest.raises(ModelError) as error:
        run_here(long_words(tmp_path / "run", change))
    said = str(error.value)
    assert f"the trainer's {model} and the server at http://127.0.0.1:" in said
    assert f"tokens sampled after {LENGTH - 64} (limit 0.05), by 0.0" in said
    assert f"so the trainer's {model} is wrong; it grows with the position" in said
    assert "in the trainer model.rotary_emb.inv_freq is bfloat16 and not float32: " in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_another_rotary_base_in_the_server(long_words, long_model: Path, tmp_path: Path):
    """The folder gets another base after the server has loaded it."""
    config = long_model / "config.json"
    before = config.read_text()
    config.write_text(before.replace("1000000.0", "900000.0"))
    assert config.read_text() != before
    try:
        with pytest.raises(GenerationError) as error:
            run_here(long_words(tmp_path / "run"))
    finally:
        config.write_text(before)
    said = str(error.value)
    assert " is wrong; it grows with the position, as with rotary frequencies" in said
    assert said.index("so the server at http://127.0.0.1:") < said.index(" is wrong")
    assert "start the servers with the model's own config.json" in said


@pytest.mark.long
def test_zero3_in_bfloat16_samples_and_trains_the_same_network(long_words, tmp_path: Path):
    changes = long_words(tmp_path / "run", "reward.placement=zero3")
    succeed(run_processes("zero3", changes, precision="bf16", timeout=1200))
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found["student_check"]["student"]["mean"] < 0.005
    assert {c["process"] for c in found["first_check"]["comparisons"]} == {0, 1}
    drifts = {step: row["drift/mean"] for step, row in train_rows(tmp_path / "run").items()}
    assert drifts.keys() == {1, 2}
    assert all(0 < drift < 0.04 for drift in drifts.values()), drifts
