"""Run by test_frozen_zero3.py in each of two processes: argv is the folder of the models, and of the output.

Frozen students beside a ZeRO-3 run: replicated, resting in host memory, sharded; rank 0 has one batch of
tokens to score and rank 1 has seven. Writes each placement's log-probabilities of its own requests.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from rlt.models import logprobs
from rlt.models.frozen import load_frozen
from rlt.models.logprobs import Request

TOKENS_PER_BATCH = 40
STUDENTS = ("untied", "tied", "capped")


def requests_of(rank: int) -> list[Request]:
    """Return one batch of requests for rank 0, seven for rank 1."""
    num = 1 if rank == 0 else 7
    return [
        Request([(7 * i + 3 * j + rank) % 300 for j in range(30 + i)], [1, 5 + i, 12, 29 + i])
        for i in range(num)
    ]


def main(root: str, out: str) -> None:
    logprobs._CPU_OWN_ELEMENTS = 1000  # the capped one in parts of two positions, more on rank 1
    name = f"{root}/{STUDENTS[0]}"
    # As in a stage: the arguments switch ZeRO-3 on for transformers, the trainer owns the accelerator.
    arguments = TrainingArguments(out, report_to=[], per_device_train_batch_size=1, use_cpu=True)
    policy = AutoModelForCausalLM.from_pretrained(name)
    report: dict[str, Any] = {"plain_shape": list(policy.get_output_embeddings().weight.shape)}
    accelerator = Trainer(policy, arguments).accelerator
    plugin = accelerator.state.deepspeed_plugin
    assert plugin is not None
    assert plugin.zero_stage == 3
    rank = accelerator.process_index

    def agree(count: int) -> int:
        gathered: Any = accelerator.gather(torch.tensor([count], device=accelerator.device))
        return int(gathered.max())

    for kind, placement in product(STUDENTS, ("replicated", "cpu_offload", "zero3")):
        student = load_frozen(
            f"{root}/{kind}",
            placement=placement,
            dtype="float32",
            attn_implementation="eager",
            accelerator=accelerator,
        )
        for turn in ("first", "again"):  # ZeRO-3 learns the order of modules in the first pass
            results = student.logprobs(
                requests_of(rank), temperature=0.7, tokens_per_batch=TOKENS_PER_BATCH, agree=agree
            )
            report[f"{kind}_{placement}_{turn}"] = [r.tolist() for r in results]
        report[f"{placement}_collective"] = student.collective
    another = AutoModelForCausalLM.from_pretrained(name)
    report["plain_shape_after"] = list(another.get_output_embeddings().weight.shape)
    Path(out, f"rank{rank}.json").write_text(json.dumps(report))
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
