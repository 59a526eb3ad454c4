"""Teacher RL with a real vLLM server: engine drift, and the whole launch on real problems."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.stage_runs import ROOT, rows, run_command, run_here, succeed, train_rows, weights

from rlt.launch.descendants import MARK, living
from rlt.rundir.timeline import read_timelines
from rlt.surroundings.timeline import WAIT
from rlt.trainers import early
from rlt.trainers.reading import ReadOnce

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def server_words(words, tmp_path_factory) -> Iterator[Any]:
    """Return a function like `words`, for runs on one real server that holds the teacher's weights."""
    pytest.importorskip("vllm")
    from rlt.config.compose import compose
    from rlt.launch.server import running_servers

    folder = tmp_path_factory.mktemp("server")
    on_server = ["generation.backend=vllm", "generation.dtype=float32", "trainer.max_steps=3"]
    config = compose(words(folder, *on_server, evaluate=False))
    with running_servers(config) as servers:
        on_server.append(f"generation.servers=[{servers[0].address}]")
        yield lambda output, *changes: words(output, *on_server, *changes, evaluate=False)


def test_drift_and_a_tensor_left_out_of_the_sync(server_words, tmp_path: Path, monkeypatch):
    """One test, since the server comes with right weights only once: the faulty run goes first."""
    import rlt.stages.rl as stage

    left_out = "model.layers.1.mlp.down_proj.weight"
    make_sync = stage.make_weight_sync

    def make_leaky_sync(*args: Any, **kwargs: Any) -> Any:
        sync = make_sync(*args, **kwargs)
        push = sync.push
        sync.push = lambda weights: push((n, w) for n, w in weights if n != left_out)
        return sync

    with monkeypatch.context() as patched:
        patched.setattr(stage, "make_weight_sync", make_leaky_sync)
        leaky = run_here(server_words(tmp_path / "leaky", "learning_rate=1e-2"))
    steps = train_rows(leaky)
    assert steps[1]["drift/max"] < 1e-3  # nothing has been updated yet
    assert steps[2]["drift/max"] > 0.1
    assert "engine drift: " in (leaky / "log.txt").read_text()

    monkeypatch.setattr("rlt.trainers.rl.rows_together", lambda *_: 3)  # as where a model is sharded
    with monkeypatch.context() as patched:
        num_reads, read = 0, ReadOnce.read

        def counting(*args: Any) -> None:
            nonlocal num_reads
            num_reads += 1
            read(*args)

        patched.setattr(ReadOnce, "read", counting)
        patched.setattr(early, "MOST_AT_ONCE", 2)
        whole = run_here(server_words(tmp_path / "whole", "learning_rate=1e-2"))
    drifts = {step: row["drift/max"] for step, row in train_rows(whole).items()}
    assert drifts.keys() == {1, 2, 3}
    assert all(0 < drift < 1e-3 for drift in drifts.values()), drifts
    assert "engine drift: " not in (whole / "log.txt").read_text()
    assert train_rows(whole)[3]["kl"] > 0
    assert num_reads == 3 * 3  # of three steps with eight rows, each in units of 2, 3 and 3
    assert not list((whole / "weight_sync").glob("weights-*"))

    step = read_timelines(whole / "timeline.jsonl")[-1]
    (server,) = {span.lane for span in step.spans if span.lane != "process 0"}
    assert server.startswith("server 127.0.0.1:")
    assert {span.phase for span in step.spans if span.lane == server} == {"generate"}
    asked = [span for span in step.spans if span.lane == server]
    wait = max((span for span in step.spans if span.phase == WAIT), key=lambda span: span.end - span.begin)
    assert wait.begin <= min(span.begin for span in asked)
    assert wait.end >= max(span.end for span in asked)
    assert step.seconds_waited() < wait.end - wait.begin  # it has read rows meanwhile
    assert step.seconds_of("sync") > 0

    waiting = run_here(server_words(tmp_path / "waiting", "learning_rate=1e-2", "generation.overlap=false"))
    assert rows(waiting) == rows(whole)  # to the last bit, as it does not matter who is read when
    ours, theirs = weights(waiting), weights(whole)
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.long
def test_gsm8k_under_zero3_from_one_command(shared, qwen_tokenizer, tmp_path: Path):
    """./launch_with_server.sh 1 2 on 32 real problems, with the real tokenizer and random models."""
    pytest.importorskip("vllm")
    problems = tmp_path / "gsm8k.jsonl"
    with (shared / "data" / "gsm8k_train.jsonl").open() as lines:
        problems.write_text("".join(line for line, _ in zip(lines, range(32), strict=False)))
    for name, seed in (("teacher", 1), ("student", 2)):
        write_random_qwen(qwen_tokenizer, tmp_path / name, seed)
    output = tmp_path / "run"
    settings = {
        "model_name_or_path": tmp_path / "teacher",
        "student_model": tmp_path / "student",
        "dataset_id_or_path": problems,
        "output_dir": output,
        "layout.student_prompt": "default",
        "model.dtype": "float32",
        "reward.dtype": "float32",
        "generation.dtype": "float32",
        "max_prompt_length": 600,
        "max_completion_length": 24,
        "num_generations": 2,
        "train_batch_size": 4,
        "per_device_train_batch_size": 1,
        "learning_rate": 1e-4,
        "trainer.max_steps": 5,
        "trainer.save_steps": 3,
        "trainer.ref_sync_steps": 3,
        "report_to": "null",
    }
    command = [str(ROOT / "launch_with_server.sh"), "1", "2", str(ROOT / "cfgs/run_cfg/teacher_rl.yaml")]
    mark = uuid.uuid4().hex
    words = [f"{key}={value}" for key, value in settings.items()]
    done = run_command([*command, *words], timeout=1000, **{MARK: mark})
    succeed(done)
    assert living(mark) == []

    steps = train_rows(output)
    assert list(steps) == [1, 2, 3, 4, 5]
    assert all(row["drift/max"] < 1e-3 for row in steps.values())
    assert steps[5]["kl"] > 0
    record = json.loads((output / "run.json").read_text())
    assert (record["status"], record["problems"]) == ("finished", 32)
    for name in ("config.yaml", "README.md", "report.html", "config.json", "tokenizer.json"):
        assert (output / name).stat().st_size > 0
    assert len(list((output / "samples").glob("step_*.parquet"))) == 5
    assert len(weights(output / "checkpoint-3" / "reference")) == len(weights(output))
    assert {log.name for log in (output / "logs").iterdir()} >= {"train.log"}
    assert len(list((output / "logs").iterdir())) == 2  # and the server's


def write_random_qwen(tokenizer: Any, folder: Path, seed: int) -> None:
    """Write a small random Qwen2 with the full vocabulary of Qwen2.5, padded as theirs is."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
