"""Run by test_gradient_sums.py in each of two processes: argv is the model folder and the output folder.

One optimizer step of the warm-up in bfloat16 under each stage of ZeRO, with gradients summed in the model's
dtype and in float32. Rank 0 writes the sum of one matrix as the optimizer gets it, and the sum's dtype. The
stages share a start, which takes longer than their steps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from deepspeed.utils import safe_get_full_grad
from transformers import AutoTokenizer, TrainerCallback

from rlt.config.compose import compose
from rlt.trainers.arguments import RunContext, sft_arguments
from rlt.trainers.gradients import accumulate_gradients_in
from rlt.trainers.order import all_of
from rlt.trainers.sft import Row, SFTData, make_sft_trainer

STAGES = (3, 2, 1)
NUM_ROWS = 128
LENGTH = 12
MATRIX = "model.layers.0.mlp.down_proj.weight"


def training_rows() -> list[Row]:
    """Return rows of equal length, every token of which counts."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 300, (NUM_ROWS, LENGTH), generator=generator).tolist()
    return [{"input_ids": row, "labels": row} for row in ids]


class LookBeforeTheStep(TrainerCallback):
    """Keeps the gradient that DeepSpeed's step begins with; the step itself clears it."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.found: dict[str, Any] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        engine = self._trainer.model_wrapped
        step, parameters = engine.step, dict(engine.module.named_parameters())

        def look_and_step(*arguments: Any, **options: Any) -> Any:
            if engine.is_gradient_accumulation_boundary():
                self.found["sum"] = safe_get_full_grad(parameters[MATRIX])
                self.found["stage"] = engine.zero_optimization_stage()
                self.found["dtype"] = engine.get_data_types()[1]
                buffer = getattr(engine.optimizer, "grad_partitions_flat_buffer", None)
                self.found["bytes"] = None if buffer is None else buffer.nbytes
            return step(*arguments, **options)

        engine.step = look_and_step


def sum_gradients(name: str, folder: Path, dtype: str) -> dict[str, Any]:
    """Train one step, and return what `LookBeforeTheStep` has found."""
    words = [f"model_name_or_path={name}", f"output_dir={folder}", f"train_batch_size={NUM_ROWS}"]
    words += ["trainer.max_steps=1", "trainer.save_steps=0", f"trainer.grad_accum_dtype={dtype}"]
    config = compose(["run_cfg=teacher_sft", *words, "report_to=null", "trainer.max_grad_norm=0"])
    context = RunContext(2, use_cpu=True, deepspeed=True)
    trainer = make_sft_trainer(
        name,
        sft_arguments(config, context),
        data=SFTData(training_rows(), None, all_of(NUM_ROWS)),
        tokenizer=AutoTokenizer.from_pretrained(name),
    )
    accumulate_gradients_in(config.trainer.grad_accum_dtype, trainer.accelerator)
    look = LookBeforeTheStep(trainer)
    trainer.add_callback(look)
    trainer.train()
    return look.found


def main(name: str, out: str) -> None:
    """Sum gradients in each dtype under each stage; the launcher has set what a stage of 3 needs."""
    for stage in STAGES:
        os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
        os.environ["ACCELERATE_DEEPSPEED_ZERO3_INIT"] = str(stage == 3).lower()
        for dtype in ("model", "float32"):
            found = sum_gradients(name, Path(out, f"{dtype}.{stage}"), dtype)
            if os.environ["RANK"] == "0":
                torch.save(found, Path(out, f"{dtype}.{stage}.pt"))
            AcceleratorState._reset_state(reset_partial_state=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
