"""The forecast in words: a page for --dry-run, a few lines at the start of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from rlt.config.beside import role_beside, settings_beside
from rlt.forecast.forecast import Forecast
from rlt.forecast.hardware import USABLE_SHARE
from rlt.forecast.remedies import Remedy, remedies
from rlt.forecast.server_memory import ServerMemory
from rlt.forecast.step_time import AHEAD, Lengths
from rlt.forecast.training_memory import Parts, attention_on_gpu
from rlt.models.size import ModelSize
from rlt.text import GIB, duration, gib

_NAME = 24


def page(forecast: Forecast) -> list[str]:
    """Return the whole forecast."""
    lines = [f"forecast, calculated and not measured: {_gpus(forecast)}; {_models(forecast)}"]
    lines += [*_training(forecast), *_server(forecast), *_times(forecast), *_too_long(forecast)]
    return lines + _verdict(forecast)


def _too_long(forecast: Forecast) -> list[str]:
    """Return a line for each phase that the launcher could take for a hang, though it only takes long."""
    limit = forecast.config.trainer.hang_timeout
    if forecast.times is None or not limit:
        return []
    return [
        f"{name} may take {duration(most)}, and launch.sh ends a training after {duration(limit)} in one "
        f"phase: set trainer.hang_timeout={math.ceil(most / 600) * 1200}"
        for name, most in forecast.times.seconds(forecast.at_most).items()
        if most > limit
    ]


def summary(forecast: Forecast) -> list[str]:
    """Return what matters most."""
    needs = forecast.needs
    memory = f"{gib(needs.training.peak)} of {gib(needs.gpu.memory)} GiB on each training GPU"
    if needs.server is not None:
        memory += f", {needs.server.sequences} sequences of full length at once on each server"
    verdict = "fits" if needs.fit else "DOES NOT FIT"
    lines = [f"forecast, calculated and not measured: {memory}: {verdict}"]
    if forecast.times is not None:
        lines.append(f"  a step takes {_tenths(_step(forecast, forecast.assumed))}{_hours(forecast)}")
    lines += [f"  {line}" for line in _too_long(forecast)]
    return [*lines, *(f"  {line}" for line in _verdict(forecast) if not needs.fit)]


def _gpus(forecast: Forecast) -> str:
    plan = forecast.plan
    servers = sum(map(len, plan.servers))
    split = (
        f"{servers} generating and {len(plan.training_gpus)} training" if servers else len(plan.training_gpus)
    )
    each = f" on each of {plan.num_machines} machines" if plan.num_machines > 1 else ""
    return f"{split} x {forecast.needs.gpu.name}{each}"


def _models(forecast: Forecast) -> str:
    policy, students = forecast.models.policy, forecast.models.students
    text = f"{policy.parameters / 1e9:.2f} B parameters{_active(policy)}"
    return text + "".join(f", student {s.parameters / 1e9:.2f} B{_active(s)}" for s in students)


def _active(size: ModelSize) -> str:
    return f" ({size.active / 1e9:.2f} B for each token)" if size.is_mixture else ""


def _training(forecast: Forecast) -> Iterator[str]:
    plan, training, gpu = forecast.plan, forecast.needs.training, forecast.needs.gpu
    how = f"{plan.strategy}, {plan.num_processes} process(es), {attention_on_gpu(forecast.config)} attention"
    yield f"each training GPU ({how}), GiB:"
    for name, size in training.kept.items():
        beside = settings_beside(forecast.config)
        is_beside = beside is not None and name == role_beside(forecast.config)
        placement = f" ({beside.placement})" if beside is not None and is_beside else ""
        yield f"  {name + placement:<{_NAME}} {gib(size):>7}"
    yield f"  {'kept all the time':<{_NAME}} {gib(sum(training.kept.values())):>7}"
    for name, parts in training.phases.items():
        yield f"  + {name:<{_NAME - 2}} {gib(sum(parts.values())):>7}   {_parts(parts)}"
    if forecast.config.trainer.gradient_checkpointing == "auto":
        above = forecast.config.trainer.recompute_above or 0
        yield f"  micro-batches of up to {above:,} tokens keep their activations"
    verdict = "fits" if forecast.needs.training_fits else "DOES NOT FIT"
    usable = f"{gib(USABLE_SHARE * gpu.memory)} of {gib(gpu.memory)} usable"
    yield f"  {'most at once':<{_NAME}} {gib(training.peak):>7}   {usable}: {verdict}"
    if training.host:
        yield f"  {'host memory, in all':<{_NAME}} {gib(training.host):>7}"


def _parts(parts: Parts) -> str:
    return ", ".join(f"{name} {gib(size)}" for name, size in parts.items() if size >= 0.05 * GIB)


def _server(forecast: Forecast) -> Iterator[str]:
    server, plan = forecast.needs.server, forecast.plan
    if server is None:
        return
    yield f"each GPU of a vLLM server ({len(plan.servers)} server(s) of {len(plan.servers[0])} GPU(s)), GiB:"
    for name, size in (("weights", server.weights), ("working memory", server.working)):
        yield f"  {name:<{_NAME}} {gib(size):>7}"
    yield f"  {'keys and values':<{_NAME}} {gib(server.pool):>7}   {_sequences(server)}"
    if not forecast.needs.server_fits:
        yield "  DOES NOT FIT: vLLM does not start when one sequence of full length has no room"


def _sequences(server: ServerMemory) -> str:
    each = f"{server.kv_bytes / server.sequence / 1024:.4g} KiB a token"
    return f"{each}: {server.sequences} sequences of {server.sequence:,} tokens at once"


def _times(forecast: Forecast) -> Iterator[str]:
    if forecast.times is None:
        name = forecast.needs.gpu.name
        yield f"no times: the speed of {name} is not known; hardware.gpu=KIND takes another's"
        return
    assumed = forecast.times.seconds(forecast.assumed)
    most = forecast.times.seconds(forecast.at_most)
    yield f"{'a step takes':<{_NAME + 2}} {'assumed':>9} {'at most':>9}"
    for name, seconds in {**assumed, "in all": sum(assumed.values())}.items():
        bound = most[name] if name in most else sum(most.values())
        yield f"  {name:<{_NAME}} {_tenths(seconds):>9} {_tenths(bound):>9}"
    if hidden := forecast.times.hidden(forecast.assumed):
        scoring, meanwhile = map(_tenths, hidden)
        what = "scoring and update" if AHEAD in assumed else "scoring"
        yield f"  of {scoring} of {what} {meanwhile} pass while servers write (assumed lengths)"
    yield from _run(forecast)
    yield f"assumed: {_assumption(forecast.assumed)}; at most: every row at its limit"


def _run(forecast: Forecast) -> Iterator[str]:
    hours, most = forecast.gpu_hours(forecast.assumed), forecast.gpu_hours(forecast.at_most)
    if hours is None or most is None:
        yield "no GPU-hours: the number of steps is not known before the data is loaded"
        return
    name = f"GPU-hours, {forecast.num_steps:,} steps"
    yield f"  {name:<{_NAME}} {_hour(hours):>9} {_hour(most):>9}"


def _assumption(lengths: Lengths) -> str:
    if not lengths.longest:
        mean = lengths.prompt + lengths.completion
        return f"rows of {mean:,} tokens (hardware.mean_prompt_tokens + hardware.mean_completion_tokens)"
    return (
        f"prompts of {lengths.prompt:,} tokens, completions of {lengths.completion:,} in the mean "
        f"(hardware.mean_prompt_tokens, hardware.mean_completion_tokens) and up to {lengths.longest:,}"
    )


def _verdict(forecast: Forecast) -> list[str]:
    if forecast.needs.fit:
        return []
    found = remedies(forecast)
    if not found:
        return ["no setting makes it fit: take more or larger GPUs, or smaller models"]
    return [f"it fits with {' '.join(remedy.words)} ({_new(remedy)})" for remedy in found]


def _new(remedy: Remedy) -> str:
    needs = remedy.needs
    text = f"{gib(needs.training.peak)} of {gib(needs.gpu.memory)} GiB on each training GPU"
    if needs.training.host:
        text += f", {gib(needs.training.host)} GiB in the host"
    return text + (f", {needs.server.sequences} sequences at once on each server" if needs.server else "")


def _step(forecast: Forecast, lengths: Lengths) -> float:
    assert forecast.times is not None
    times: Mapping[str, float] = forecast.times.seconds(lengths)
    return sum(times.values())


def _hours(forecast: Forecast) -> str:
    hours = forecast.gpu_hours(forecast.assumed)
    if hours is None:
        return ""
    return f", {forecast.num_steps:,} steps {_hour(hours)} GPU-hours ({_assumption(forecast.assumed)})"


def _hour(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def _tenths(seconds: float) -> str:
    return duration(seconds, tenths=True)
