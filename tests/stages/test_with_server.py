"""Teacher RL with a real vLLM server: engine drift, and the whole launch on real problems."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.ahead import AHEAD, Asked, assert_learns_from_the_weights_before, watch_requests
from helpers.stage_runs import (
    ROOT,
    count_differences,
    interrupted_copy,
    rows,
    run_command,
    run_here,
    succeed,
    train_rows,
    weights,
)
from pyarrow import parquet

from rlt.errors import GenerationError, ServerLost
from rlt.generation.checkpoint_sync import CheckpointSync
from rlt.generation.vllm_pool import VLLMPool
from rlt.launch.descendants import MARK, living
from rlt.rundir.samples import read_samples, sample_files
from rlt.rundir.timeline import read_timelines
from rlt.surroundings.timeline import WAIT
from rlt.trainers import early
from rlt.trainers.reading import ReadOnce
from rlt.trainers.writing import FOLDER

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


@pytest.fixture(scope="module")
def ahead_words(server_words, held_out: Path) -> Any:
    """Return a function like `server_words`, for runs whose completions are written a step ahead.

    Two steps are an epoch, so that the third one's problems are asked for in the epoch before theirs.
    """
    usual = [*AHEAD, "learning_rate=1e-2", "trainer.max_steps=4"]
    usual += ["trainer.save_steps=1", "data.subset.n=4", "trainer.beta=0", "trainer.ref_sync_steps=0"]
    usual += [f"evaluation.path={held_out}", "evaluation.steps=3", "evaluation.num_generations=2"]
    return lambda output, *changes: server_words(output, *usual, *changes)


@pytest.fixture(scope="module")
def ahead(ahead_words, tmp_path_factory) -> tuple[Path, list[Asked]]:
    """Return the directory of four steps, a checkpoint after each, and what they have asked for."""
    with watch_requests() as asked:
        run = run_here(ahead_words(tmp_path_factory.mktemp("ahead") / "run"))
    assert [len(one.rows) for one in asked] == [8] * 4
    return run, asked


def test_a_step_learns_from_completions_of_the_weights_before(ahead, tiny_teacher: Path):
    run, asked = ahead
    assert_learns_from_the_weights_before(run, asked, tiny_teacher, temperature=0.7)


def test_a_run_resumed_from_completions_written_ahead_is_the_same(ahead, ahead_words, tmp_path: Path):
    """The weights that have written them are gone: the checkpoint holds them."""
    run, asked = ahead
    copy = interrupted_copy(run, tmp_path / "copy", step=2)
    table = parquet.read_table(copy / "checkpoint-2" / FOLDER / "completions.parquet").to_pylist()
    third = asked[2].rows
    assert [tuple(row["token_ids"]) for row in table] == [third[row].token_ids for row in range(8)]
    assert [tuple(row["logprobs"]) for row in table] == [third[row].logprobs for row in range(8)]
    resumed = run_here(ahead_words(copy, "resume_from=latest"))
    assert count_differences(resumed, run) == 0
    for step, file in sample_files(resumed / "samples").items():
        assert read_samples(file) == read_samples(run / "samples" / file.name), step
    assert not (run / "checkpoint-4" / FOLDER).exists()  # there is no fifth step


@pytest.fixture
def lose_the_server(monkeypatch, tiny_teacher: Path) -> Any:
    """Let the server be lost once, with three of the third step's rows: they are written during the second.

    It comes back with the model's first weights.
    """
    streams, stream, wait = [], VLLMPool.stream_groups, VLLMPool.wait_until_back

    def lost(self, *args, **options):
        streams.append(args)
        for count, found in enumerate(stream(self, *args, **options)):
            if len(streams) == 3 and count == 3:
                raise ServerLost("the server has ended")
            yield found

    def started_again(self, *args, **options):
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(tiny_teacher)}}
        self.on_all("start", lambda server: server.post("/collective_rpc", body, timeout=1000))
        wait(self, *args, **options)

    monkeypatch.setattr(VLLMPool, "stream_groups", lost)
    monkeypatch.setattr(VLLMPool, "wait_until_back", started_again)


@pytest.mark.long
def test_what_a_lost_server_was_writing_ahead_is_written_by_the_same_weights(
    ahead, ahead_words, lose_the_server, tmp_path: Path
):
    again = run_here(ahead_words(tmp_path / "run"))
    assert "waiting for it to come back" in (again / "log.txt").read_text()
    assert count_differences(again, ahead[0]) == 0


@pytest.mark.long
def test_without_their_files_the_weights_of_now_write_it(ahead_words, lose_the_server, tmp_path, monkeypatch):
    """As over NCCL: nobody has the older weights, so the rows are newer, and the samples say so."""
    monkeypatch.setattr(CheckpointSync, "version", property(lambda _: None, lambda *_: None), raising=False)
    run = run_here(ahead_words(tmp_path / "run", "trainer.max_steps=3"))
    table = read_samples(run / "samples" / "step_000003.parquet")
    assert sorted(row["staleness"] for row in table) == [0] * 5 + [1] * 3
    assert train_rows(run)[3]["sampling/staleness"] == 3 / 8


def test_a_server_that_is_lost_for_good_leaves_what_it_wrote_ahead(
    ahead, ahead_words, lose_the_server, tmp_path: Path, monkeypatch
):
    """It is lost while the second checkpoint waits for it; the next run has what is missing written."""
    run = tmp_path / "run"
    with pytest.raises(GenerationError, match=r"(?s)the server has ended.*step 2 of 4 is kept in"):
        run_here(ahead_words(run, "generation.max_restarts=0"))
    folder = run / "checkpoint-2" / FOLDER
    assert len(parquet.read_table(folder / "completions.parquet")) == 3
    assert not (run / "weight_sync").exists()
    first, kept = weights(run / "checkpoint-1"), weights(folder / "weights")
    assert all((kept[name] == first[name]).all() for name in first)
    monkeypatch.undo()
    resumed = run_here(ahead_words(run, "resume_from=latest"))
    assert count_differences(resumed, ahead[0]) == 0


@pytest.mark.long
def test_gsm8k_under_zero3_from_one_command(shared, qwen_tokenizer, tmp_path: Path):
    """./launch_with_server.sh 1 2 on 32 real problems, with the real tokenizer and random models.

    One step ahead: the other runs of two processes with a server, in tests/faults, are not.
    """
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
        "generation.max_staleness": 1,
        "trainer_args.vllm_importance_sampling_correction": "true",
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
    assert all(0 < steps[i]["drift/max"] < 1e-3 for i in (1, 2, 3, 4))
    assert [row["sampling/staleness"] for row in steps.values()] == [0, 1, 1, 1, 1]
    assert (output / "checkpoint-3" / FOLDER / "completions.parquet").is_file()
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
