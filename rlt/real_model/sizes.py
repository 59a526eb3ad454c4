"""How much work a budget of hours holds: numbers of problems and steps, for two CPU cores of 2026.

RL is held to its hours by `trainer.max_hours`; the rest is fixed work, which takes longer on a busy machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rlt.devices import on_gpu
from rlt.errors import DataError
from rlt.io import write_json

NAME = "sizes.json"
RL_SHARE = 0.6
"""Of the hours."""
_RL_STEPS = 125
"""The released recipe's; on a GPU they fit."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything is done."""

    kinds: int
    """Problems of the table of four kinds of explanations."""
    student_steps: int
    """Of 16 rows: the student learns its layout."""
    warm_up_steps: int
    """Of 16 rows."""
    rl_steps: int
    """At most, of 16 completions."""
    held_out: int
    """Problems that both teachers explain, twice each."""
    students: int
    """Problems whose explanations the students learn from; 0: there are no students, and nothing held out."""
    dtype: str
    """Of student, warm-up, RL and its server; what is reported is measured in float32."""

    @property
    def student_rows(self) -> int:
        """Rows that the student learns its layout from."""
        return 16 * self.student_steps

    @property
    def warm_up_rows(self) -> int:
        """Rows that the warm-up reads, each once; RL takes its problems from them, too."""
        return max(16 * self.warm_up_steps, 64)


def short_sizes(dtype: str) -> Sizes:
    """Return the sizes of the form that only shows that everything runs."""
    return Sizes(kinds=4, student_steps=1, warm_up_steps=1, rl_steps=2, held_out=0, students=0, dtype=dtype)


def sizes_for(hours: float, dtype: str) -> Sizes:
    """Return what two cores do in so many hours, within what is worth doing at all."""

    def scaled(per_hour: float, least: int, most: int) -> int:
        return max(least, min(most, round(per_hour * hours)))

    speed = 1.7 if dtype == "bfloat16" else 1.0  # of a training step, measured with matrix units
    return Sizes(
        kinds=scaled(30, 8, 200),
        student_steps=scaled(4 * speed, 4, 100),
        warm_up_steps=scaled(6 * speed, 4, 100),
        rl_steps=_RL_STEPS,
        held_out=scaled(25, 8, 200),
        students=16 * scaled(2, 1, 16),
        dtype=dtype,
    )


def fast_dtype(*, on_cpu: bool) -> str:
    """Return bfloat16 where what is trained on has units for its products, else float32."""
    import torch

    has_units = (not on_cpu and on_gpu()) or torch.cpu.get_capabilities().get("amx_bf16")
    return "bfloat16" if has_units else "float32"


def settle_sizes(folder: Path, wanted: Sizes, *, has_begun: bool, dtype: str | None = None) -> Sizes:
    """Return the sizes of a folder: those it has begun with, which a later call with other hours keeps.

    A `dtype` is another matter: with it, what has been trained in another one is trained again.
    """
    is_kept = has_begun and (folder / NAME).is_file()
    sizes = read_sizes(folder) if is_kept else wanted
    if dtype is not None:
        sizes = replace(sizes, dtype=dtype)
    write_json(folder / NAME, asdict(sizes))
    return sizes


def read_sizes(folder: Path) -> Sizes:
    """Return the sizes that a folder was begun with."""
    path = folder / NAME
    try:
        return Sizes(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} does not hold the sizes of a run ({error}): take another folder, or remove the file"
        ) from None
