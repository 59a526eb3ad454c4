"""One optimizer step of the warm-up on some rows, by real processes; the gradient that the optimizer gets.

Run by test_loss_weights.py: `loss_weights.py MODEL FOLDER`, with rows.json and kinds.json in the folder.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, TrainerCallback

from rlt.config.compose import compose
from rlt.trainers.arguments import RunContext, sft_arguments
from rlt.trainers.order import all_of
from rlt.trainers.sft import Row, SFTData, make_sft_trainer

MATRIX = "model.layers.0.mlp.down_proj.weight"


class Look(TrainerCallback):
    """Keeps the gradient as it is when all processes have added theirs."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.gradient = torch.empty(0)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Copy it."""
        self.gradient = self._model.get_parameter(MATRIX).grad.clone()


def step(model: str, rows: list[Row], folder: Path, words: list[str]) -> torch.Tensor:
    """Return the gradient of one step on all rows."""
    size = int(os.environ["WORLD_SIZE"])
    usual = ["run_cfg=teacher_sft", f"model_name_or_path={model}", f"output_dir={folder / 'run'}"]
    usual += ["trainer.max_steps=1", "report_to=null", "model.dtype=float32", "trainer.max_grad_norm=0"]
    config = compose([*usual, "trainer.save_steps=0", "trainer.gradient_checkpointing=false", *words])
    trainer = make_sft_trainer(
        model,
        sft_arguments(config, RunContext(size, use_cpu=True, deepspeed=False)),
        data=SFTData(rows, None, all_of(len(rows))),
        tokenizer=AutoTokenizer.from_pretrained(model),
    )
    look = Look(trainer.model)
    trainer.add_callback(look)
    trainer.train()
    return look.gradient


def main(model: str, folder: str) -> None:
    """Train one step of each kind that FOLDER/kinds.json names; rank 0 writes what was found."""
    rows, kinds = (json.loads(Path(folder, f"{name}.json").read_text()) for name in ("rows", "kinds"))
    for name, words in kinds.items():
        found = step(model, rows, Path(folder), words)
        if os.environ["RANK"] == "0":
            torch.save(found, Path(folder, f"{name}.pt"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
