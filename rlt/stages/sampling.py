"""Drawing samples that are saved as they are finished: what collect_traces and evaluate do alike.

Behind servers every sample is asked for by itself; in this process samples are drawn in fixed chunks. Of what
a killed run has saved nothing is drawn again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from transformers import PreTrainedTokenizerBase

from rlt.config.schema import Config
from rlt.config.tree import get
from rlt.generation.collective import on_every_process
from rlt.generation.transformers_backend import TransformersGenerator
from rlt.generation.types import Generator, Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.models.load import load_model
from rlt.records import Completion
from rlt.reporting.progress import SampleProgress
from rlt.stages.common import is_main_process
from rlt.traces.journal import Journal, JournalRow, Key
from rlt.traces.manifest import Manifest

logger = logging.getLogger(__name__)


class Drawable(Protocol):
    """One sample that is to be drawn."""

    @property
    def key(self) -> Key:
        """What it is known by in the journal."""
        ...

    @property
    def prompt_ids(self) -> list[int]:
        """What the model is asked with."""
        ...

    def seed(self, seed: int) -> int:
        """Return its own seed, from that of the run."""
        ...


S = TypeVar("S", bound=Drawable)
Units = Mapping[int, Sequence[S]]
"""Samples that are saved together, by their number."""
Drawn = Iterator[tuple[int, list[Completion]]]
"""Units as they are finished: the number, and a completion for each of the samples."""


def units_of(samples: Sequence[S], size: int) -> dict[int, Sequence[S]]:
    """Return the samples in units of `size`."""
    return {i: samples[start : start + size] for i, start in enumerate(range(0, len(samples), size))}


def keys_of(units: Units[Any]) -> list[list[Key]]:
    """Return the keys of the samples of each unit, as `Journal` wants them."""
    return [[sample.key for sample in unit] for unit in units.values()]


def still_to_draw(
    journal: Journal, units: Units[S], manifest: Callable[[], Manifest]
) -> dict[int, Sequence[S]]:
    """Return, on every process, the units that the journal does not hold."""
    pending: list[Any] = [None]
    if is_main_process():
        pending = [journal.open(manifest())]
        total = sum(len(unit) for unit in units.values())
        logger.info("%d of %d %s are there already", len(journal.rows), total, journal.what)
    (pending,) = broadcast_object_list(pending)
    return {i: units[i] for i in pending}


def engine_facts(config: Config, section: str) -> dict[str, Any]:
    """Return what of the engine a sample depends on, by setting; `section` is the stage's own."""
    names = ["generation.dtype", *(["generation.api"] if section == "evaluate" else [])]
    if config.generation.backend != "vllm":
        names = ["model.dtype", "model.attn_implementation", f"{section}.samples_per_chunk"]
    return {name: get(config, name) for name in ("generation.backend", *names)}


def local_generator(
    config: Config, tokenizer: PreTrainedTokenizerBase, batch_size: int, accelerator: Accelerator
) -> Generator:
    """Return the model of the run in this process."""
    assert config.model_name_or_path is not None
    assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer has seen to a pad token"
    model: Any = load_model(
        config.model_name_or_path,
        dtype=config.model.dtype,
        attn_implementation=config.model.attn_implementation,
        revision=config.model.revision,
        trust=config.model.trust_remote_code,
    )
    model.to(accelerator.device)
    return TransformersGenerator(
        lambda: nullcontext(model),
        tokenizer.pad_token_id,
        batch_size,
        decode=lambda ids: str(tokenizer.decode(ids)),
    )


def from_servers(
    pool: VLLMPool, sampling: Sampling, seed: int, todo: Units[Any], context: int | None = None
) -> Drawn:
    """Yield units of one sample each; many are in flight, so that no server waits for work.

    With a `context` a sample ends where prompt and completion fill it.
    """
    numbers, samples = list(todo), [sample for (sample,) in todo.values()]
    prompts, seeds = [s.prompt_ids for s in samples], [s.seed(seed) for s in samples]
    each = [replace(sampling, max_tokens=_room(prompt, sampling, context)) for prompt in prompts]
    for i, completion in pool.stream(prompts, each, seeds):
        yield numbers[i], [completion]


def in_process(
    generator: Generator,
    accelerator: Accelerator,
    sampling: Sampling,
    seed: int,
    todo: Units[Any],
    context: int | None = None,
) -> Drawn:
    """Yield every unit on every process; each of them draws one unit a round.

    `context` as in `from_servers`.
    """
    numbers = list(todo)
    for start in range(0, len(numbers), accelerator.num_processes):
        ours = numbers[start : start + accelerator.num_processes]
        mine = ours[accelerator.process_index] if accelerator.process_index < len(ours) else None
        samples = [] if mine is None else todo[mine]
        prompts, seeds = [s.prompt_ids for s in samples], [s.seed(seed) for s in samples]
        rooms = [_room(prompt, sampling, context) for prompt in prompts]
        widest = replace(sampling, max_tokens=max(rooms, default=sampling.max_tokens))
        groups = on_every_process(accelerator, partial(generator.generate, prompts, 1, widest, seeds))
        cut = [_cut(completion, room) for (completion,), room in zip(groups, rooms, strict=True)]
        results: Any = gather_object([(mine, cut)])
        yield from (result for result in results if result[0] is not None)


def save(
    drawn: Drawn,
    todo: Units[S],
    journal: Journal,
    read: Callable[[S, Completion], JournalRow],
    clock: SampleProgress,
) -> None:
    """Write to the journal what `read` makes of each sample, unit by unit as they are drawn.

    A process that does not write only takes part.
    """
    if not is_main_process():
        for _ in drawn:
            pass
        return
    try:
        with journal.appending() as append:
            for number, completions in drawn:
                pairs = zip(todo[number], completions, strict=True)
                rows = [read(sample, completion) for sample, completion in pairs]
                append(rows)
                clock.add(rows, sum(len(completion.token_ids) for completion in completions))
    finally:
        logger.info("%d %s are in %s", len(journal.rows), journal.what, journal.path)


def _room(prompt_ids: Sequence[int], sampling: Sampling, context: int | None) -> int:
    """Return how many tokens may follow a prompt."""
    return sampling.max_tokens if context is None else min(sampling.max_tokens, context - len(prompt_ids))


def _cut(completion: Completion, room: int) -> Completion:
    """Return a completion that was drawn in a batch with more room, as it would be in its own."""
    if len(completion.token_ids) <= room:
        return completion
    return Completion(completion.token_ids[:room], completion.logprobs[:room], "length")
