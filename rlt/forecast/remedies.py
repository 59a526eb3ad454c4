"""What to change where a run does not fit its GPUs: each suggestion is tried by a forecast with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.util import find_spec

from rlt.config.beside import section_beside, settings_beside
from rlt.config.schema import Config, stage_of
from rlt.config.students import frozen_students
from rlt.config.tree import get
from rlt.device_plan import Plan
from rlt.forecast.forecast import Forecast, Needs, needs_of
from rlt.forecast.training_memory import SHARDED

_LORA_RANK = 32
_SCORING_TOKENS = 8192
_NUM_SHOWN = 3
_SHORTEST = 512
"""Tokens below which a limit is not lowered."""


@dataclass(frozen=True)
class Change:
    """A change of one setting, or of the strategy."""

    setting: str
    """STRATEGY for the word that names a file of cfgs/accelerate."""
    word: str
    apply: Callable[[Config, Plan], Plan]
    """Changes the configuration in place, and returns the plan that follows."""


STRATEGY = ""


@dataclass(frozen=True)
class Remedy:
    """Words under which the run fits; one that names a strategy replaces the user's."""

    words: tuple[str, ...]
    needs: Needs


def remedies(forecast: Forecast) -> list[Remedy]:
    """Return the single changes that are enough, or else one combination; none where no change is.

    Each comes on top of what the user typed. Only for a run that does not fit.
    """
    assert not forecast.needs.fit, "there is nothing to remedy"
    changes = list(_changes(forecast.config, forecast.plan, forecast.needs))
    single = [remedy for change in changes if (remedy := _try(forecast, [change])).needs.fit]
    if single:
        return single[:_NUM_SHOWN]
    chosen: list[Change] = []
    for change in changes:
        chosen = [c for c in chosen if c.setting != change.setting] + [change]
        if _try(forecast, chosen).needs.fit:
            break
    else:
        return []
    for change in list(chosen):  # what later ones have made needless
        rest = [c for c in chosen if c is not change]
        if _try(forecast, rest).needs.fit:
            chosen = rest
    return [_try(forecast, chosen)]


def _try(forecast: Forecast, changes: Sequence[Change]) -> Remedy:
    """Return the words for some changes, with the needs under them."""
    config, plan = deepcopy(forecast.config), forecast.plan
    for change in changes:
        plan = change.apply(config, plan)
    words = [change.word for change in changes if change.setting != STRATEGY]
    if plan.strategy != forecast.plan.strategy:
        words.append(plan.strategy)
    return Remedy(tuple(words), needs_of(config, plan, forecast.models, forecast.needs.gpu))


def _changes(config: Config, plan: Plan, needs: Needs) -> Iterable[Change]:
    """Yield what could help, roughly from what costs nothing to what changes the result."""
    if not needs.training_fits:
        yield from _for_training(config, plan)
    if not needs.server_fits:
        yield from _for_servers(config, plan)
    yield from _shorter(config)


def _for_training(config: Config, plan: Plan) -> Iterable[Change]:
    if not config.trainer.gradient_checkpointing:
        yield _set("trainer.gradient_checkpointing", True)
    beside, section = settings_beside(config), section_beside(config)
    has_frozen = bool(frozen_students(config)) or stage_of(config).is_judged
    scoring = beside if has_frozen and beside is not None and beside.placement != "server" else None
    has_deepspeed = find_spec("deepspeed") is not None
    if plan.strategy not in SHARDED and has_deepspeed:
        yield _strategy("zero3")
    if scoring and scoring.placement == "replicated" and plan.num_processes > 1 and has_deepspeed:
        yield _set(f"{section}.placement", "zero3")
    if config.per_device_train_batch_size > 1:
        yield _set("per_device_train_batch_size", 1)
    if scoring and scoring.tokens_per_batch > _SCORING_TOKENS:
        yield _set(f"{section}.tokens_per_batch", _SCORING_TOKENS)
    whole = stage_of(config).is_judged and config.opd.support == "full"  # the loss needs the teacher's head
    if scoring and scoring.placement == "replicated" and not whole:
        yield _set(f"{section}.placement", "cpu_offload")
    if plan.strategy != "offload" and has_deepspeed:
        yield _strategy("offload")
    if not config.model.lora.rank and find_spec("peft") is not None:
        yield _set("model.lora.rank", _LORA_RANK)


def _for_servers(config: Config, plan: Plan) -> Iterable[Change]:
    num_gpus = sum(map(len, plan.servers))
    size = config.generation.tensor_parallel
    while num_gpus % (size := 2 * size) == 0:
        yield _set("generation.tensor_parallel", size)


def _shorter(config: Config) -> Iterable[Change]:
    names = ("data.max_length",)
    if stage_of(config).is_rl:
        names = ("max_completion_length", "max_prompt_length")
    for name in names:
        length = get(config, name)
        while (length := length // 2) >= _SHORTEST:
            yield _set(name, length)


def _strategy(name: str) -> Change:
    return Change(STRATEGY, name, lambda _, plan: replace(plan, strategy=name))


def _set(name: str, value: object) -> Change:
    """Return the change of a setting, and of the plan where that depends on it."""

    def apply(config: Config, plan: Plan) -> Plan:
        section, _, leaf = name.rpartition(".")
        setattr(get(config, section) if section else config, leaf, value)
        if name == "generation.tensor_parallel":
            size = config.generation.tensor_parallel
            gpus = [gpu for server in plan.servers for gpu in server]
            return replace(plan, servers=tuple(tuple(gpus[i : i + size]) for i in range(0, len(gpus), size)))
        if (
            name in ("reward.placement", "opd.placement")
            and value == "zero3"
            and plan.strategy not in SHARDED
        ):
            return replace(plan, strategy="zero3")  # which it needs
        return plan

    return Change(name, f"{name}={str(value).lower() if isinstance(value, bool) else value}", apply)
