"""Whether a run's checkpoints will fit on its disk, from the models' dimensions alone."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlt.config.schema import Config, stage_of
from rlt.errors import ConfigError
from rlt.forecast.activations import WITHOUT_DEEPSPEED, bytes_of
from rlt.forecast.training_memory import trained_parameters
from rlt.io import files_below
from rlt.models.size import ModelSize
from rlt.text import gib


@dataclass(frozen=True)
class DiskNeeds:
    """Bytes that a run writes at most, and how many checkpoints of them there are at a time."""

    checkpoint: int
    model: int
    """The final model; with weights that travel to the servers through files, once more."""
    num_checkpoints: int
    """One more than are kept: an old one goes when the new one is whole."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.num_checkpoints * self.checkpoint + self.model


def disk_needs(config: Config, strategy: str, policy: ModelSize, num_steps: int | None) -> DiskNeeds:
    """Return what a training run under a strategy of cfgs/accelerate (or `single`) writes.

    Where the number of steps is not known, at least one checkpoint is.
    """
    plain = strategy in WITHOUT_DEEPSPEED
    width = 4 if plain else bytes_of(config.model.dtype)
    trained, whole = trained_parameters(config, policy), width * policy.parameters
    weights = width * trained
    state = 8 * trained if plain else 12 * trained  # DeepSpeed keeps a float32 copy of the weights
    if strategy in ("zero1", "zero2"):
        state += whole  # its module states hold the weights once more
    is_rl = stage_of(config).is_rl
    moves = is_rl and config.trainer.beta and config.trainer.ref_sync_steps and not config.model.lora.rank
    checkpoint = weights + state + (whole if moves else 0)
    if stage_of(config).is_judged and config.opd.teacher == "ema":
        checkpoint += 4 * policy.parameters  # the average, in float32
    by_files = is_rl and config.generation.backend == "vllm" and config.generation.weight_sync == "checkpoint"
    return DiskNeeds(checkpoint, whole * (2 if by_files else 1), _num_checkpoints(config, num_steps))


def check_disk(config: Config, needs: DiskNeeds) -> str:
    """Return one line that says what the run will write; ConfigError when its disk has no room for that.

    What earlier checkpoints in the directory take counts as room: a resumed run replaces them.
    """
    directory = Path(config.output_dir)
    room = shutil.disk_usage(_existing(directory)).free + _size_of_checkpoints(directory)
    count = needs.num_checkpoints
    of_each = f"{count} checkpoint{'s' * (count > 1)} of {gib(needs.checkpoint)} GiB and "
    what = f"up to {gib(needs.total)} GiB: {of_each if count else ''}{gib(needs.model)} GiB of final weights"
    if needs.total <= room:
        return f"disk: {what}; {gib(room)} GiB are free"
    fit = (room - needs.model) // needs.checkpoint - 1 if needs.checkpoint else 0
    fewer = [f"keep fewer with trainer.save_total_limit={fit}"] if fit >= 1 else []
    none = ["save none with trainer.save_steps=0"] if count and needs.model <= room else []
    raise ConfigError(
        f"`output_dir={config.output_dir}` has {gib(room)} GiB of room, but the run writes {what}; "
        f"{', or '.join([*fewer, *none, 'take another output_dir'])}."
    )


def _num_checkpoints(config: Config, num_steps: int | None) -> int:
    every, limit = config.trainer.save_steps, config.trainer.save_total_limit
    if not every:
        return 0
    written = 1 if num_steps is None else math.ceil(num_steps / every)  # the last step is saved too
    return written if limit is None else min(written, limit + 1)


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _size_of_checkpoints(directory: Path) -> int:
    size = 0
    for checkpoint in directory.glob("checkpoint-*"):
        for path in files_below(checkpoint):
            with suppress(FileNotFoundError):  # a run that is on may have removed it
                size += path.stat().st_size
    return size
