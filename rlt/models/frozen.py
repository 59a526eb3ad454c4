"""A frozen model beside the trained one: a copy per GPU, sharded with ZeRO-3, or resting in host memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn
from transformers import PreTrainedModel

from rlt.devices import on_gpu
from rlt.errors import ConfigError
from rlt.models.load import load_model
from rlt.models.logprobs import Extra, Request, add_token_query, own_head, token_logprobs, token_values
from rlt.models.own_head import OwnHead
from rlt.models.zero_init import buffers_left_alone, warn_of_rounded_parameters


class FrozenModel:
    """A model that only scores tokens. `collective` models need every rank in each forward pass."""

    version = 0
    """It never changes."""

    def __init__(
        self, module: nn.Module, device: torch.device, *, rests_on_cpu: bool, collective: bool
    ) -> None:
        self._module = module
        self._device = device
        self._rests_on_cpu = rests_on_cpu
        self._num_uses = 0
        self.collective = collective

    def logprobs(
        self,
        requests: list[Request],
        *,
        temperature: float,
        tokens_per_batch: int,
        runs: Sequence[int] | None = None,
        agree: Callable[[int], int] = lambda count: count,
    ) -> list[torch.Tensor]:
        """Return the log-probabilities of each request's positions (see `token_logprobs`)."""
        with self.in_place() as module:
            return token_logprobs(
                module,
                requests,
                temperature=temperature,
                tokens_per_batch=tokens_per_batch,
                device=self._device,
                runs=runs,
                agree=agree if self.collective else (lambda count: count),
            )

    def values(
        self,
        requests: list[Request],
        extra: Extra | None,
        *,
        temperature: float,
        tokens_per_batch: int,
        runs: Sequence[int] | None = None,
        agree: Callable[[int], int] = lambda count: count,
    ) -> list[tuple[torch.Tensor, ...]]:
        """Return what is read at each request's positions (see `token_values`)."""
        with self.in_place() as module:
            return token_values(
                module,
                requests,
                extra,
                temperature=temperature,
                tokens_per_batch=tokens_per_batch,
                device=self._device,
                runs=runs,
                agree=agree if self.collective else (lambda count: count),
            )

    @property
    def module(self) -> nn.Module:
        """The plain model, without the engine that shards it."""
        return getattr(self._module, "module", self._module)

    @property
    def head(self) -> OwnHead:
        """From its hidden states to its logits; the first call is collective where it is sharded."""
        return own_head(self.module, self._device)

    @contextmanager
    def in_place(self) -> Iterator[Any]:
        """Open the model on its device; one that rests in host memory goes back after all uses."""
        if not self._rests_on_cpu:
            yield self._module
            return
        self._num_uses += 1
        if self._num_uses == 1:
            self._module.to(self._device)
        try:
            yield self._module
        finally:
            self._num_uses -= 1
            if not self._num_uses:
                self._module.to("cpu")


def scoring_accelerator() -> Accelerator:
    """Return the accelerator of a run that trains nothing.

    DeepSpeed wants to know the batch size of a training all the same.
    """
    PartialState(cpu=not on_gpu())  # under DeepSpeed a CPU has to be asked for first
    accelerator = Accelerator(gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1))
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        plugin.deepspeed_config.update(
            train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=1, gradient_clipping=0.0
        )
        plugin.deepspeed_config.pop("train_batch_size", None)
    return accelerator


def load_frozen(  # noqa: PLR0913 - options by keyword
    name: str,
    *,
    placement: str,
    dtype: str,
    attn_implementation: str,
    accelerator: Accelerator,
    revision: str | None = None,
    trust: bool = False,
    setting: str = "reward.placement",
) -> FrozenModel:
    """Return a frozen causal model on the accelerator's device, placed as asked by `setting`."""
    if placement == "zero3":
        how: dict[str, Any] = {"attn_implementation": attn_implementation, "revision": revision}
        return _sharded(lambda: load_model(name, dtype=dtype, trust=trust, **how), accelerator, setting)
    device = accelerator.device
    rests_on_cpu = placement == "cpu_offload" and device.type != "cpu"
    place = torch.device("cpu") if rests_on_cpu else device
    module = load_whole(
        name,
        dtype=dtype,
        attn_implementation=attn_implementation,
        device=place,
        revision=revision,
        trust=trust,
        on_gpu=device.type != "cpu",
    )
    return FrozenModel(module, device, rests_on_cpu=rests_on_cpu, collective=False)


def load_whole(
    name: str,
    *,
    dtype: str,
    attn_implementation: str = "auto",
    device: torch.device,
    revision: str | None = None,
    trust: bool = False,
    on_gpu: bool | None = None,
) -> PreTrainedModel:
    """Return a frozen causal model that is whole on one device, also in a run under ZeRO-3.

    `on_gpu` says where it will compute, if not where it rests.
    """
    with _outside_zero3():
        model = load_model(
            name,
            dtype=dtype,
            attn_implementation=attn_implementation,
            revision=revision,
            trust=trust,
            on_gpu=device.type != "cpu" if on_gpu is None else on_gpu,
        )
    model.requires_grad_(False).eval()
    model.to(device)  # pyright: ignore[reportArgumentType] - transformers' annotation loses `self`
    add_token_query(model)
    return model


def _sharded(load: Callable[[], PreTrainedModel], accelerator: Accelerator, setting: str) -> FrozenModel:
    plugin = accelerator.state.deepspeed_plugin
    if plugin is None or plugin.zero_stage != 3:
        raise ConfigError(
            f"{setting}=zero3 needs a run under DeepSpeed ZeRO-3; start it with launch.sh without "
            "zero1, zero2 or ddp, or choose replicated or cpu_offload"
        )
    from trl.models.utils import prepare_deepspeed

    with buffers_left_alone():
        model = load()
    warn_of_rounded_parameters(model, f"{setting}=replicated or cpu_offload")
    add_token_query(model)
    model.requires_grad_(False)
    engine = prepare_deepspeed(model, accelerator)
    return FrozenModel(engine, accelerator.device, rests_on_cpu=False, collective=True)


@contextmanager
def _outside_zero3() -> Iterator[None]:
    """Hide transformers' global ZeRO-3 state, under which a whole model would load as empty tensors."""
    from transformers.integrations import deepspeed as integration

    reference = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = reference
