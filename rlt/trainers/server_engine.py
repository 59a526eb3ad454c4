"""Completions of a training run from a pool of vLLM servers, which may be lost and come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from rlt.errors import GenerationError, ServerLost
from rlt.generation.collective import consume_on_main_process, on_main_process
from rlt.generation.parallel import Arrivals
from rlt.generation.types import Sampling
from rlt.generation.vllm_pool import VLLMPool
from rlt.generation.weight_sync import WeightSync
from rlt.records import Completion
from rlt.trainers.early import Read, Rounds, Unit
from rlt.trainers.engine import Rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restarts:
    """What to do about servers that are lost."""

    wait: Callable[[], None]
    """Returns once they are back."""
    most: int
    """How often that may happen."""


@dataclass(frozen=True)
class _Asked:
    """What a step asks the servers for."""

    rows_per_process: list[int]
    start: int
    """This process's first row among those of all."""
    prompts: list[list[int]]
    """Of the groups, in order."""
    seeds: list[int]


class ServerEngine:
    """Completions from a pool of servers, asked by the main process for everyone."""

    def __init__(
        self,
        weights: Callable[[], Iterator[tuple[str, Tensor]]],
        accelerator: Accelerator,
        *,
        generator: VLLMPool,
        sync: WeightSync,
        sampling: Sampling,
        restarts: Restarts,
        overlaps: bool,
    ) -> None:
        """`weights`: the policy's, under the servers' names; gathering them is collective under ZeRO-3.

        `overlaps`: rows are read while others are written (early.py).
        """
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

    def sample(
        self, prompts: Rows, seeds: Sequence[int], group: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return one completion per row of this process; raises GenerationError on every process."""
        asked = self._of_all(prompts, seeds, group)
        groups: list[list[Completion]] = []

        def ask() -> None:
            groups[:] = on_main_process(
                self._accelerator,
                lambda: self._generator.generate(
                    asked.prompts, group, sampling or self._sampling, asked.seeds
                ),
            )

        self._until_done(ask)
        completions = [completion for members in groups for completion in members]
        return completions[asked.start : asked.start + len(prompts)]

    def sample_and_read(
        self, prompts: Rows, seeds: Sequence[int], group: int, read: Read, units: Sequence[Unit]
    ) -> list[Completion]:
        """Return one completion per row of this process.

        Each unit of rows is read once it is whole and every other process has one too. Errors are those of
        `sample`, and those of `read`. A lost server costs the rows that it was writing.
        """
        asked = self._of_all(prompts, seeds, group)
        assert set(asked.rows_per_process) == {len(prompts)}, "every process has as many rows"
        rounds = Rounds(units, len(asked.rows_per_process))
        found: dict[int, Completion] = {}
        new: list[tuple[int, Completion]] = []
        arrivals: list[Arrivals[tuple[int, Completion]]] = []  # one at most, on the main process

        def take() -> list[tuple[int, Completion]]:
            if not arrivals:
                known = frozenset(found)
                arrivals.append(
                    Arrivals(
                        self._generator.stream_groups(
                            asked.prompts, group, self._sampling, asked.seeds, known=known
                        )
                    )
                )
            try:
                return arrivals[0].take(wait=not rounds.are_ready)
            except GenerationError:
                arrivals.clear()
                raise

        def ask() -> None:
            new[:] = on_main_process(self._accelerator, take)

        while not rounds.have_all_come or rounds.are_ready:
            if not rounds.have_all_come:
                self._until_done(ask)
                found.update(new)
                rounds.add([row for row, _ in new])
            if rounds.are_ready:
                mine = rounds.next()[self._accelerator.process_index]
                read(mine, [found[asked.start + row] for unit in mine for row in unit])
        return [found[asked.start + row] for row in range(len(prompts))]

    def _of_all(self, prompts: Rows, seeds: Sequence[int], group: int) -> _Asked:
        """Return what all processes ask for; collective."""
        rows_per_process = gather_object([len(prompts)])
        return _Asked(
            rows_per_process,
            start=sum(rows_per_process[: self._accelerator.process_index]),
            prompts=gather_object([list(p) for p in prompts])[::group],
            seeds=gather_object(list(seeds))[::group],
        )

    def sample_each(self, prompts: Rows, sampling: Sampling, seed: int) -> list[tuple[str, list[Completion]]]:
        """Return every server with its own completion of each prompt; the same on every process."""
        answers: list[tuple[str, list[Completion]]] = []

        def ask() -> None:
            answers[:] = on_main_process(
                self._accelerator, lambda: self._generator.generate_on_each(prompts, sampling, seed)
            )

        self._until_done(ask)
        return answers

    def _until_done(self, ask: Callable[[], None]) -> None:
        while not self._survives(ask):
            self.sync_weights()  # those that have come back hold the model's first weights

    def _push(self) -> None:
        consume_on_main_process(self._accelerator, self._weights(), self._sync.push)

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
