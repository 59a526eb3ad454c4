"""Metrics of steps from the parts of two processes, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rlt.models.size import size_of
from rlt.surroundings.gpus import recognise
from rlt.surroundings.timeline import Span, Timeline
from rlt.trainers.meter import Peak, Step, lane_of, peak_of, summary, timeline, token_counts


def part(begin: float, end: float, *spans: Span, tokens=(30, 40, 500), boot: str = "one") -> Step:
    return Step(begin, end, spans, *tokens, boot)


def two_processes() -> list[Step]:
    """Return a step of ten seconds: a server writes for four; the processes score for three and for two."""
    first = part(
        100,
        110,
        Span("server a", "generate", 100.5, 104.5),
        Span("process 0", "wait", 100.5, 104.5),
        Span("process 0", "reward", 104.5, 107.5),
        Span("process 0", "update", 107.5, 110),
    )
    second = part(
        100.25,
        110,
        Span("process 1", "wait", 100.5, 104.5),
        Span("process 1", "reward", 104.5, 106.5),
        Span("process 1", "wait", 106.5, 107.5),
        Span("process 1", "update", 107.5, 109.5),
        tokens=(20, 22, 300),
    )
    return [first, second]


def test_metrics_of_a_step_by_hand():
    steps = two_processes()
    whole = timeline(7, steps)
    assert (whole.step, whole.seconds) == (7, 10)
    assert Span("process 1", "reward", 4.5, 6.5) in whole.spans
    # 2 operations a token and 1 for each token that it attends to: half of 800 / 50 = 8 on average
    peak = Peak(lambda tokens, context: tokens * (2 + context), per_second=1000)
    assert summary([whole], [steps], peak) == pytest.approx(
        {
            "time/step": 10,
            "time/generate": 4,
            "time/reward": 3,
            "time/update": 2.5,
            "time/wait": (4 + 5) / 2,
            "perf/tokens_per_second": 50 / 10,
            "perf/padding": 62 / 50,
            "perf/mfu": 50 * 10 / (2.5 * 2) / 1000,
        }
    )
    assert "perf/mfu" not in summary([whole], [steps], None)


def test_metrics_are_means_over_steps_and_a_rate_is_of_their_sums():
    fast = [part(0, 2, Span("process 0", "update", 1, 2), tokens=(10, 10, 100))]
    slow = [part(2, 10, Span("process 0", "update", 4, 10), Span("process 0", "sync", 2, 3))]
    found = summary([timeline(1, fast), timeline(2, slow)], [fast, slow], None)
    assert found["time/step"] == 5
    assert found["time/update"] == 3.5
    assert found["time/sync"] == 0.5
    assert found["perf/tokens_per_second"] == 40 / 10
    assert found["perf/padding"] == 50 / 40


def test_clocks_of_two_machines_are_not_compared():
    here = part(1000, 1010, Span("process 0", "update", 1001, 1010))
    there = part(50, 61, Span("process 1", "update", 51, 61), boot="another")
    assert timeline(1, [here, there]) == Timeline(
        1, 11, (Span("process 0", "update", 1, 10), Span("process 1", "update", 1, 11))
    )


def test_tokens_of_both_kinds_of_batches():
    sft = {"input_ids": torch.ones(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
    lengths, computed = token_counts(sft)
    assert (lengths.tolist(), computed) == ([4, 2], 8)
    prompts, completions = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    lengths, computed = token_counts({"prompt_mask": prompts, "completion_mask": completions})
    assert (lengths.tolist(), computed) == ([4, 3], 10)


def test_a_process_is_named_after_the_gpu_that_nvidia_smi_shows(monkeypatch):
    def named(device: str) -> str:
        return lane_of(SimpleNamespace(process_index=1, device=torch.device(device)))

    assert named("cpu") == "process 1"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert named("cuda:1") == "process 1, GPU 1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert named("cuda:1") == "process 1, GPU 5"


def peak_on(monkeypatch, name: str, **config):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    fields = {"model_type": "qwen2", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    fields |= {"intermediate_size": 16, "vocab_size": 32, **config}
    model = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: fields, name_or_path="tiny"))
    return peak_of(model, torch.device("cuda:0"))


def test_the_peak_is_told_where_gpu_and_model_are_known(monkeypatch, caplog):
    caplog.set_level("INFO", logger="rlt")
    assert peak_of(None, torch.device("cpu")) is None
    peak = peak_on(monkeypatch, "NVIDIA H100 80GB HBM3")
    assert peak is not None
    assert peak.per_second == recognise("NVIDIA H100 80GB HBM3", 0).flops == 989e12
    fields = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    size = size_of({"model_type": "qwen2", "vocab_size": 32, **fields}, "tiny")
    assert peak.operations(100, 50) == 3 * size.forward_flops(100, 50)  # backward takes twice the forward
    assert not caplog.records
    assert peak_on(monkeypatch, "NVIDIA Imaginary 9000") is None
    assert peak_on(monkeypatch, "NVIDIA H100 80GB HBM3", model_type="mamba") is None
    assert [record.message for record in caplog.records] == [
        "perf/mfu is not logged: NVIDIA Imaginary 9000 is not in rlt/surroundings/gpus.py",
        "perf/mfu is not logged: tiny is of the type mamba, which has to be counted",
    ]
