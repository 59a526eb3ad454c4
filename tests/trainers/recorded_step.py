"""train.py with a trainer that writes its first step down: ids, rewards, losses and gradients.

Run under accelerate by test_update.py, or used there in its own process. RLT_TEST_RECORD names the folder;
the reference starts from the checkpoint in RLT_TEST_REFERENCE instead of the policy's weights, so that the KL
term has a gradient at once. With RLT_TEST_DOUBLE the models are cast to float64. With RLT_TEST_NOISE the
engine reports log-probabilities that are off by as much at most, so that the correction counts. With
RLT_TEST_OWN_HEAD the loss is taken as for a family that TRL's fused head does not know.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlt.records import Completion
from rlt.trainers.own_loss import LossHead
from rlt.trainers.teacher_rl import TeacherRLTrainer

LENGTHS = ([90, 3, 30, 8], [12, 2, 24, 5])
"""Tokens of the completions of each process, at most."""


class RecordingTrainer(TeacherRLTrainer):
    """Trains as usual."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "RLT_TEST_OWN_HEAD" in os.environ:
            LossHead._trl_is_right = lambda *_: False
        super().__init__(*args, **kwargs)
        if self.reference is not None:  # modern recipes have none
            self.reference.load(Path(os.environ["RLT_TEST_REFERENCE"]))
        self._first_check = None  # which would find that reference out
        self._folder = Path(os.environ["RLT_TEST_RECORD"])
        models = {"policy": self.policy, "reference": self.ref_model}
        if "RLT_TEST_DOUBLE" in os.environ:
            for model in filter(None, models.values()):
                model.double()
        self._recorded_losses: list[float] = []
        self._passes: list[dict[str, Any]] = []
        self._sample_whole = self.engine.sample
        self.engine.sample = self._sample_cut  # pyright: ignore[reportAttributeAccessIssue]
        for name, model in models.items():
            if model is None:
                continue
            plain = self.accelerator.unwrap_model(model)
            plain.base_model.register_forward_pre_hook(partial(self._count, name), with_kwargs=True)

    def _sample_cut(self, *args: Any, **kwargs: Any) -> list[Completion]:
        """Cut what the engine samples to lengths with a long tail: most rows are short, one is long."""
        cut = LENGTHS[self.accelerator.process_index]
        completions = self._sample_whole(*args, **kwargs)
        noise = float(os.environ.get("RLT_TEST_NOISE", "0"))
        shifts = [noise * math.sin(i) for i in range(max(cut))]
        return [
            replace(
                c,
                token_ids=c.token_ids[:n],
                logprobs=tuple(value + shift for value, shift in zip(c.logprobs[:n], shifts, strict=False)),
                finish_reason="length",
            )
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
            rows = len(self._batch)
            samples = [
                {
                    "problem": item.problem.id,
                    "prompt": list(item.prompt_ids),
                    "completion": list(completion.token_ids),
                    "reward": score.reward,
                    "sampled": list(completion.logprobs),
                    "advantage": advantage,
                    "reference": None if reference is None else reference[: len(completion.token_ids)],
                }
                for item, completion, score, advantage, reference in zip(
                    self._batch,
                    self._completions,
                    self._scores,
                    output["advantages"].tolist(),
                    output.get("ref_per_token_logps", [None] * rows),
                    strict=True,
                )
            ]
            torch.save(samples, self._folder / f"samples_{self.accelerator.process_index}.pt")
        return output

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        is_first = self.state.global_step == 0
        if is_first and self.is_deepspeed_enabled and not self._recorded_losses:
            self._look_before_step(model)
        loss = super().training_step(model, *args, **kwargs)
        if is_first:
            self._recorded_losses.append(loss.item())
            if self.accelerator.sync_gradients:  # the last pass of the step
                if not self.is_deepspeed_enabled:  # clipping comes afterwards
                    self._gradients = {n: p.grad.clone() for n, p in self.policy.named_parameters()}
                record = {"losses": self._recorded_losses, "gradients": self._gradients}
                path = self._folder / f"backward_{self.accelerator.process_index}.pt"
                torch.save({**record, "passes": self._passes}, path)
        return loss

    def _look_before_step(self, engine: Any) -> None:
        """Keep the whole gradients when DeepSpeed is about to clip and apply them, in its last backward."""
        from deepspeed.utils import safe_get_full_grad

        step = engine.step

        def look_and_step(*args: Any, **kwargs: Any) -> None:
            self._gradients = {n: safe_get_full_grad(p).clone() for n, p in self.policy.named_parameters()}
            engine.step = step
            step(*args, **kwargs)

        engine.step = look_and_step


if __name__ == "__main__":
    import rlt.stages.teacher_rl as stage
    import train

    stage.TeacherRLTrainer = RecordingTrainer  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(train.main(sys.argv[1:]))
