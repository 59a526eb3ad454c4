#!/usr/bin/env python3
"""The student-likelihood reward in TRL's own GRPO trainer.

    .venv/bin/python scripts/examples/reward_in_grpo.py MODEL STUDENT DATA.jsonl OUTPUT

Rows of DATA need `question` and `solution`. Without a GPU it trains in float32 on the CPU.
"""

from __future__ import annotations

import sys

import torch
from datasets import Dataset, load_dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from rlt.rewards import StudentLikelihood

model, student, data, output = sys.argv[1:]
on_gpu = torch.cuda.is_available()


def add_prompt(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """Return what the teacher reads: the question with its solution."""
    request = f"{row['question']}\n\nThe solution is: {row['solution']}\n\nExplain how to get there."
    return {"prompt": [{"role": "user", "content": request}]}


dataset = load_dataset("json", data_files=data, split="train")
assert isinstance(dataset, Dataset)
reward = StudentLikelihood(student, dtype="bfloat16" if on_gpu else "float32")
args = GRPOConfig(
    output_dir=output,
    per_device_train_batch_size=4,
    num_generations=4,
    max_completion_length=16,
    max_steps=2,
    logging_steps=1,
    bf16=on_gpu,
    use_cpu=not on_gpu,
    report_to="none",
)
trainer = GRPOTrainer(model, reward_funcs=reward, args=args, train_dataset=dataset.map(add_prompt))
reward.teacher = trainer.model  # r_KL against the policy; without it, the student's own surprise
trainer.train()
