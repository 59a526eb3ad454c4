"""Completions of a training run from a pool of vLLM servers, which may be lost and come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from rlt.errors import GenerationError, ServerLost
from rlt.generation.checkpoint_sync import read_checkpoint
from rlt.generation.collective import consume_on_main_process, on_main_process
from rlt.generation.parallel import Arrivals
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weight_sync import WeightSync
from rlt.records import Completion
from rlt.trainers.early import Read, Rounds, Unit
from rlt.trainers.engine import Rows
from rlt.trainers.writing import Asked, Kept, Writing, keep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyWeights:
    """What the servers are to hold."""

    gather: Callable[[], Iterator[tuple[str, Tensor]]]
    """Returns them under the servers' names; collective under ZeRO-3."""
    updates: Callable[[], int]
    """Returns how many they have seen."""


@dataclass(frozen=True)
class Restarts:
    """What to do about servers that are lost."""

    wait: Callable[[], None]
    """Returns once they are back."""
    most: int
    """How often that may happen."""


class ServerEngine:
    """Completions from a pool of servers, asked by the main process for everyone."""

    def __init__(
        self,
        weights: PolicyWeights,
        accelerator: Accelerator,
        *,
        generator: VLLMPool,
        sync: WeightSync,
        sampling: Sampling,
        restarts: Restarts,
        overlaps: bool,
    ) -> None:
        """`overlaps`: rows are read while others are written (early.py)."""
        self.holds = -1
        """How many updates the weights have seen that the servers hold; below 0 before the first push."""
        self.overlaps = overlaps
        self._wait_for_servers = restarts.wait
        self._restarts_left = restarts.most
        self._accelerator = accelerator
        self._generator = generator
        self._sync = sync
        self._sampling = sampling
        self._weights = weights

    def sync_weights(self) -> None:
        """Push the policy's weights to every server; gathering them is collective under ZeRO-3."""
        while not self._survives(self._push):
            pass
        self.holds = self._weights.updates()

    def sample(
        self, prompts: Rows, seeds: Sequence[int], group: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return one completion per row of this process; raises GenerationError on every process."""
        asked = self.asked(prompts, seeds, group, sampling)
        groups: list[list[Completion]] = []

        def ask() -> None:
            groups[:] = on_main_process(
                self._accelerator,
                lambda: self._generator.generate(asked.prompts, group, asked.sampling, asked.seeds),
            )

        self._until_done(ask)
        completions = [completion for members in groups for completion in members]
        return completions[asked.start : asked.start + len(prompts)]

    def asked(
        self, prompts: Rows, seeds: Sequence[int], group: int, sampling: Sampling | None = None
    ) -> Asked:
        """Return what all processes ask for; collective."""
        rows_per_process = gather_object([len(prompts)])
        return Asked(
            rows_per_process,
            start=sum(rows_per_process[: self._accelerator.process_index]),
            group=group,
            prompts=gather_object([list(p) for p in prompts])[::group],
            seeds=gather_object(list(seeds))[::group],
            sampling=sampling or self._sampling,
        )

    def begin(self, asked: Asked) -> Writing:
        """Let the servers write with the weights that they hold, and return at once; collective."""
        writing = Writing(asked, self.holds)
        self._request(writing)
        return writing

    def take_up(self, kept: Kept, asked: Asked) -> Writing:
        """Let the servers write what is missing of a checkpoint's completions; collective.

        With the weights that have written the others, where the checkpoint holds them, else with those that
        the servers hold.
        """
        writing = Writing(asked, kept.updates)
        writing.found.update(kept.found)
        if not writing.is_whole:
            if kept.weights is None:
                writing.updates = self.holds
            else:
                while not self._survives(partial(self._push_files, kept.weights)):
                    pass
                self.holds = kept.updates
            self._request(writing)
        return writing

    def finish(self, writing: Writing) -> None:
        """Return once all rows have come; collective. Errors are those of `sample`."""
        while not writing.is_whole:
            self._take(writing, wait=True)

    def read_as_written(
        self, writing: Writing, read: Read, units: Sequence[Unit], when_written: Callable[[], None]
    ) -> list[Completion]:
        """Return one completion per row of this process, all of them in `units`.

        Each unit of rows is read once it is whole and every other process has one too, or, where rows are not
        read while others are written, once all have come. Before those that are left then, `when_written` is
        called, maybe more than once. Errors are those of `sample`, and those of `read`. A lost server costs
        the rows that it was writing.
        """
        asked, own = writing.asked, sum(map(len, units))
        assert set(asked.rows_per_process) == {own}, "every process has as many rows"
        rounds = Rounds(units, len(asked.rows_per_process))
        rounds.add(sorted(writing.found))
        while not rounds.have_all_come or rounds.are_ready:
            if not rounds.have_all_come:
                rounds.add(self._take(writing, wait=not (self.overlaps and rounds.are_ready)))
            if rounds.have_all_come:
                when_written()
            if rounds.are_ready and (self.overlaps or rounds.have_all_come):
                mine = rounds.next()[self._accelerator.process_index]
                read(mine, [writing.found[asked.start + row].completion for unit in mine for row in unit])
        return writing.own(own)

    def _take(self, writing: Writing, *, wait: bool) -> list[int]:
        """Add the rows that have come, and return them; collective."""
        new: list[tuple[int, Completion]] = []

        def take() -> list[tuple[int, Completion]]:
            self._start(writing)
            assert writing.arrivals is not None
            try:
                return writing.arrivals.take(wait=wait)
            except GenerationError:
                writing.arrivals = None
                raise

        def ask() -> None:
            new[:] = on_main_process(self._accelerator, take)

        self._until_done(ask, writing)
        writing.add(new)
        return [row for row, _ in new]

    def _request(self, writing: Writing) -> None:
        on_main_process(self._accelerator, lambda: self._start(writing))

    def _start(self, writing: Writing) -> None:
        """Ask the servers for what is missing, unless they write it; on the main process."""
        if writing.arrivals is None:
            asked = writing.asked
            stream = self._generator.stream_groups(
                asked.prompts, asked.group, asked.sampling, asked.seeds, known=frozenset(writing.found)
            )
            writing.arrivals = Arrivals(stream)

    def keep(self, writing: Writing, checkpoint: Path) -> None:
        """Write what has come into a checkpoint, and what writes the rest; collective."""
        on_main_process(self._accelerator, lambda: keep(writing, checkpoint, self._sync.version))

    def sample_each(self, prompts: Rows, sampling: Sampling, seed: int) -> list[tuple[str, list[Completion]]]:
        """Return every server with its own completion of each prompt; the same on every process."""
        answers: list[tuple[str, list[Completion]]] = []

        def ask() -> None:
            answers[:] = on_main_process(
                self._accelerator, lambda: self._generator.generate_on_each(prompts, sampling, seed)
            )

        self._until_done(ask)
        return answers

    def _until_done(self, ask: Callable[[], None], writing: Writing | None = None) -> None:
        while not self._survives(ask):
            self._put_back(writing)

    def _put_back(self, writing: Writing | None) -> None:
        """Give servers that have come back what they held: they hold the model's first weights.

        The policy may have learnt since. Where its weights of then are not in files, those of now write what
        is missing.
        """
        version = on_main_process(self._accelerator, lambda: self._sync.version)
        if version is None:
            self.sync_weights()
            if writing is not None:
                writing.updates = self.holds
            return
        while not self._survives(partial(self._push_files, version)):
            pass

    def _push_files(self, folder: Path) -> None:
        on_main_process(self._accelerator, lambda: self._sync.push(read_checkpoint(folder)))

    def _push(self) -> None:
        consume_on_main_process(self._accelerator, self._weights.gather(), self._sync.push)

    def _survives(self, call: Callable[[], None]) -> bool:
        """Return whether a collective call was done; False after a lost server has come back.

        Every process sees the same error, so all of them wait, and repeat, together.
        """
        try:
            call()
            return True
        except ServerLost as error:
            if not self._restarts_left:
                raise
            self._restarts_left -= 1
            if self._accelerator.is_main_process:
                logger.warning("%s\nwaiting for it to come back, to repeat what was lost", error)
            on_main_process(self._accelerator, self._wait_for_servers)
            self._sync.reconnect()
            return False

    def close(self) -> None:
        """Delete the files of the last weight sync and close the connections."""
        if self._accelerator.is_main_process:
            self._sync.close()
