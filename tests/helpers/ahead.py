"""Runs whose completions are written one step ahead: what they ask a server for, against plain loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.stage_runs import train_rows
from rlt.generation.vllm_pool import VLLMPool
from rlt.records import Completion
from rlt.rundir.samples import read_samples, sample_files

CLIP = 1.1
AHEAD = [
    "generation.max_staleness=1",
    "trainer_args.vllm_importance_sampling_correction=true",
    "trainer_args.vllm_importance_sampling_mode=token_truncate",
    f"trainer_args.vllm_importance_sampling_clip_max={CLIP}",
]


@dataclass(frozen=True)
class Asked:
    """What a run has asked the server for, once for each step, and what has come."""

    prompts: list[list[int]]
    rows: dict[int, Completion]


@contextmanager
def watch_requests() -> Iterator[list[Asked]]:
    """Give the list in which every request to a pool of servers is written down."""
    asked: list[Asked] = []
    stream = VLLMPool.stream_groups

    def watched(self, prompts, n, *args, **options):
        asked.append(Asked([prompt for prompt in prompts for _ in range(n)], {}))
        for row, completion in stream(self, prompts, n, *args, **options):
            asked[-1].rows[row] = completion
            yield row, completion

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(VLLMPool, "stream_groups", watched)
        yield asked


def assert_learns_from_the_weights_before(
    run: Path, asked: Sequence[Asked], start: Path, *, temperature: float
) -> None:
    """Check by plain loads of the checkpoints who has written what, and the ratios of the update."""
    steps = train_rows(run)
    count = len(asked)
    tables = [read_samples(file) for file in sample_files(run / "samples").values()]
    assert [{row["staleness"] for row in table} for table in tables] == [{0}, *[{1}] * (count - 1)]
    assert [steps[i]["sampling/staleness"] for i in range(1, count + 1)] == [0, *[1] * (count - 1)]
    # Of weights as they are pushed, for the step after: there is none after the last.
    assert all(0 < steps[i]["drift/max"] < 1e-3 for i in range(1, count))
    policies = [start, *(run / f"checkpoint-{step}" for step in range(1, count))]
    name = "sampling/importance_sampling_ratio"
    for step in range(1, count + 1):
        writer = max(step - 2, 0)
        ratios = []
        for row, prompt in enumerate(asked[step - 1].prompts):
            completion = asked[step - 1].rows[row]
            sampled = torch.tensor(completion.logprobs)
            written = _logprobs(policies[writer], prompt, completion.token_ids, temperature)
            assert (written - sampled).abs().max() < 1e-4
            read = _logprobs(policies[step - 1], prompt, completion.token_ids, temperature)
            ratios.append((read - sampled).exp())
        ratio = torch.cat(ratios)
        assert steps[step][f"{name}/mean"] == pytest.approx(ratio.clamp(max=CLIP).mean().item(), rel=1e-4)
        assert steps[step][f"{name}/min"] == pytest.approx(ratio.min().item(), rel=1e-3)
        assert (ratio.max() > CLIP) == (step > 1)  # or there would be nothing to truncate


def _logprobs(model: Path, prompt: list[int], tokens: Sequence[int], temperature: float) -> torch.Tensor:
    """Return a plain load's log-probabilities of a completion's tokens at the sampling temperature."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = policy(ids).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
