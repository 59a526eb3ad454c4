"""train.py with a trainer that writes its first step down: ids, rewards, losses and gradients.

Run under accelerate by test_update.py. RLT_TEST_RECORD names the folder; the reference starts from the
checkpoint in RLT_TEST_REFERENCE instead of the policy's weights, so that the KL term has a gradient at once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import rlt.stages.teacher_rl as stage
import train
from rlt.records import Completion
from rlt.trainers.teacher_rl import TeacherRLTrainer

LENGTHS = ([90, 3, 30, 8], [12, 2, 24, 5])
"""Tokens of the completions of each process, at most."""
FOLDER = Path(os.environ["RLT_TEST_RECORD"])


class RecordingTrainer(TeacherRLTrainer):
    """Trains as usual."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.reference is not None
        self.reference.load(Path(os.environ["RLT_TEST_REFERENCE"]))
        self._first_check = None  # which would find that reference out
        self._recorded_losses: list[float] = []
        self._passes: list[dict[str, Any]] = []
        self._sample_whole = self.engine.sample
        self.engine.sample = self._sample_cut  # pyright: ignore[reportAttributeAccessIssue]
        for name, model in (("policy", self.policy), ("reference", self.ref_model)):
            plain = self.accelerator.unwrap_model(model)
            plain.base_model.register_forward_pre_hook(partial(self._count, name), with_kwargs=True)

    def _sample_cut(self, *args: Any, **kwargs: Any) -> list[Completion]:
        """Cut what the engine samples to lengths with a long tail: most rows are short, one is long."""
        cut = LENGTHS[self.accelerator.process_index]
        completions = self._sample_whole(*args, **kwargs)
        return [
            replace(c, token_ids=c.token_ids[:n], logprobs=c.logprobs[:n], finish_reason="length")
            for c, n in zip(completions, cut * len(completions), strict=False)
        ]

    def _count(self, name: str, *call: Any) -> None:
        """Note what a forward pass computes: its shape, and the tokens that its attention mask counts."""
        _, _, kwargs = call
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        if self.state.global_step == 0 and kwargs.get("past_key_values") is None:
            real = None if mask is None else mask.sum(1).tolist()
            entry = {"model": name, "shape": list(ids.shape), "real": real, "learns": torch.is_grad_enabled()}
            self._passes.append(entry)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.state.global_step == 0:
            samples = [
                {
                    "problem": item.problem.id,
                    "prompt": list(item.prompt_ids),
                    "completion": list(completion.token_ids),
                    "reward": score.reward,
                }
                for item, completion, score in zip(self._batch, self._completions, self._scores, strict=True)
            ]
            torch.save(samples, FOLDER / f"samples_{self.accelerator.process_index}.pt")
        return output

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 0:
            self._recorded_losses.append(loss.item())
            if self.accelerator.sync_gradients:  # the last pass of the step; clipping comes afterwards
                gradients = {n: p.grad.clone() for n, p in self.policy.named_parameters()}
                record = {"losses": self._recorded_losses, "gradients": gradients, "passes": self._passes}
                torch.save(record, FOLDER / f"backward_{self.accelerator.process_index}.pt")
        return loss


if __name__ == "__main__":
    stage.TeacherRLTrainer = RecordingTrainer  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(train.main(sys.argv[1:]))
