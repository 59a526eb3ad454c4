"""What the steps of a training take: seconds by phase, tokens, and the share of the GPUs' peak that is used.

A step begins when transformers reads its rows and ends when the optimizer has stepped; evaluations,
checkpoints and log lines lie between steps. Metrics are means over the steps since the last log line:

- `time/step`; `time/PHASE`: the seconds in which a phase was running anywhere, on one process or on
  several, or on a server. Phases may overlap, so they need not add up to the step.
- `time/wait`: the mean over the training processes of the seconds in which each computed nothing, because it
  waited for completions or for other processes. What a process waits inside a phase counts as that phase.
- `perf/tokens_per_second`: prompt and completion tokens that the update computes a loss or its context for,
  over all processes, without padding, by the seconds of whole steps.
- `perf/padding`: tokens that the passes of the update compute, padding included, by those without it.
- `perf/mfu`: the operations that the model takes for those tokens forward and backward, without what is
  computed again or for padding, by `time/update` and by the peak of all training GPUs (dense bfloat16).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from rlt.devices import VARIABLE as GPUS_VARIABLE
from rlt.devices import named_gpus
from rlt.models.size import NoForecast, size_of
from rlt.surroundings.clock import boot
from rlt.surroundings.gpus import recognise
from rlt.surroundings.timeline import PHASES, WAIT, Span, Stopwatch, Timeline, merged
from rlt.trainers.finite import FiniteTraining

logger = logging.getLogger(__name__)
_SHORTEST = 1 / 500
"""Of a step: shorter pauses between two spans of a phase are not kept."""


@dataclass(frozen=True)
class Step:
    """What one process knows of a step; times in seconds since the boot of its machine."""

    began: float
    ended: float
    spans: tuple[Span, ...]
    num_real: int
    """Tokens of the update without padding."""
    num_computed: int
    """Those with it."""
    sum_of_squares: int
    """Of the rows' lengths: attention takes operations by them."""
    boot: str


@dataclass(frozen=True)
class Peak:
    """What a model takes and what a GPU gives."""

    operations: Callable[[float, float], float]
    """Tokens and the mean context of each -> operations of the update."""
    per_second: float
    """Of one GPU at most."""


class Meter:
    """Keeps what this process does in each step; `metrics` puts the processes' steps together."""

    def __init__(self, accelerator: Accelerator, peak: Peak | None) -> None:
        """`peak` is None where the share of it is unknown."""
        self.stopwatch = Stopwatch()
        self.write: Callable[[Timeline], None] = lambda timeline: None  # noqa: ARG005 - nobody listens
        """Takes the last step before each log line; called on the main process."""
        self._accelerator = accelerator
        self._peak = peak
        self._lane = lane_of(accelerator)
        self._steps: list[Step] = []
        self._lengths: list[Tensor] = []
        self._num_computed = 0
        self._update: AbstractContextManager[None] | None = None

    def begin_step(self) -> None:
        """Begin a step."""
        self._lengths, self._num_computed, self._update = [], 0, None
        self.stopwatch.begin()

    def span(self, phase: str) -> AbstractContextManager[None]:
        """Return a context that is recorded as a phase of this process."""
        assert phase in PHASES, phase
        return self.stopwatch.span(self._lane, phase)

    def add_micro_batch(self, batch: Mapping[str, Any]) -> None:
        """Count the rows that a pass of the update is about to compute; the first one begins the update."""
        lengths_B, computed = token_counts(batch)
        self._lengths.append(lengths_B)
        self._num_computed += computed
        if self._update is None:
            self._update = self.span("update")
            self._update.__enter__()

    def end_step(self) -> None:
        """End the update and the step."""
        lengths = (
            torch.cat(self._lengths).tolist() if self._lengths else []
        )  # waits for what a GPU still does
        if self._update is not None:
            self._update.__exit__(None, None, None)
        ended = self.stopwatch.end()
        if ended is None:
            return
        tokens = (sum(lengths), self._num_computed, sum(n * n for n in lengths))
        self._steps.append(Step(ended[0], ended[1], tuple(ended[2]), *tokens, boot()))

    def metrics(self, step: int) -> dict[str, float]:
        """Return the metrics of the steps that have ended since the last call; collective."""
        by_process: list[list[Step]] = gather_object([self._steps])
        self._steps = []
        together = list(zip(*by_process, strict=True))
        if not together:
            return {}
        timelines = [timeline(step, parts) for parts in together]
        if self._accelerator.is_main_process:
            self.write(timelines[-1])
        return summary(timelines, together, self._peak)


def timeline(number: int, parts: Sequence[Step]) -> Timeline:
    """Return the processes' parts of a step as one, in seconds since it began on the first of them.

    The clocks of two machines cannot be compared: on each, the step begins at 0.
    """
    begins = {part.boot: min(p.began for p in parts if p.boot == part.boot) for part in parts}
    spans = [
        span._replace(begin=span.begin - begins[part.boot], end=span.end - begins[part.boot])
        for part in parts
        for span in part.spans
    ]
    seconds = max(part.ended - begins[part.boot] for part in parts)
    kept = merged(spans, seconds * _SHORTEST)
    return Timeline(number, seconds, kept)


def summary(
    timelines: Sequence[Timeline], steps: Sequence[Sequence[Step]], peak: Peak | None
) -> dict[str, float]:
    """Return the means over steps, each with the parts of all processes."""
    parts = [part for together in steps for part in together]
    num_processes = len(steps[0])
    real, computed = sum(p.num_real for p in parts), sum(p.num_computed for p in parts)
    total = sum(t.seconds for t in timelines)
    seconds = {phase: sum(t.seconds_of(phase) for t in timelines) for phase in PHASES if phase != WAIT}
    seconds[WAIT] = sum(t.seconds_waited() for t in timelines) / num_processes
    found = {"time/step": total / len(timelines), "perf/tokens_per_second": real / total}
    found |= {f"time/{phase}": value / len(timelines) for phase, value in seconds.items() if value}
    if real:
        found["perf/padding"] = computed / real
    if peak is not None and real:
        context = sum(p.sum_of_squares for p in parts) / real / 2  # a token attends to half its row
        used = peak.operations(real, context) / (seconds["update"] * num_processes)
        found["perf/mfu"] = used / peak.per_second
    return found


def token_counts(batch: Mapping[str, Any]) -> tuple[Tensor, int]:
    """Return the tokens of each row without padding, (B,), and those that a pass computes for all of them."""
    names = ("prompt_mask", "completion_mask") if "completion_mask" in batch else ("attention_mask",)
    masks: list[Tensor] = [batch[name] for name in names]
    return torch.stack([mask.sum(1) for mask in masks]).sum(0), sum(mask.numel() for mask in masks)


def lane_of(accelerator: Accelerator) -> str:
    """Return what a picture calls this process, with the number that nvidia-smi gives its GPU."""
    name = f"process {accelerator.process_index}"
    if accelerator.device.type != "cuda":
        return name
    index = accelerator.device.index or 0
    visible = named_gpus(os.environ.get(GPUS_VARIABLE, ""))
    return f"{name}, GPU {visible[index] if index < len(visible) else index}"


def peak_of(model: Any, device: torch.device) -> Peak | None:
    """Return what the update of a model takes and what a GPU gives; None on a CPU or where one is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    per_second = recognise(name, 0).flops
    try:
        size = size_of(model.config.to_dict(), model.config.name_or_path)
    except NoForecast as error:
        logger.info("perf/mfu is not logged: %s", error)
        return None
    if per_second is None:
        logger.info("perf/mfu is not logged: %s is not in rlt/surroundings/gpus.py", name)
        return None
    passes = 2 if hasattr(model, "get_base_model") else 3  # adapters: no gradients of the weights
    return Peak(lambda tokens, context: passes * size.forward_flops(tokens, context), per_second)


class MeteredTraining(FiniteTraining):
    """A mixin in front of a trainer of TRL: it tells the meter where a step and its update begin and end.

    `get_batch_samples` is overridden because it is the first call of each step, and `_prepare_inputs`
    because it returns what a pass computes. It has to be the first to override that one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meter = Meter(self.accelerator, peak_of(self.model, self.accelerator.device))
        self.add_callback(_EndOfStep(self.meter))

    @override
    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        self.meter.begin_step()
        with self.meter.span("read"):
            return super().get_batch_samples(*args, **kwargs)

    @override
    def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
        inputs: Any = super()._prepare_inputs(*args, **kwargs)
        assert self.model is not None, "the constructor has made it"
        if self.model.training:
            self.meter.add_micro_batch(inputs)
        return inputs

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # on every process
            logs.update(self.meter.metrics(self.state.global_step))
        super().log(logs, start_time)


class _EndOfStep(TrainerCallback):
    """Ends the meter's step."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End it."""
        self._meter.end_step()
