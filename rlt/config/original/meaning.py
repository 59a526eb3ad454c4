"""What a key of the original means here, and the ways to say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlt.config.renames import GONE
from rlt.config.tree import rows

FAR = 1e5
"""No log-probability is so far from 0."""
USUAL: dict[str, tuple[Any, ...]] = {
    **{"packing": (False,), "mask_teacher_answer": (True,), "unbias_log_probabilities": (True,)},
    **{
        "unbias_teacher_log_probs": (True,),
        "use_reference_teacher_model": (False,),
        "load_in_4bit": (False,),
    },
    **{"correct_generation_coeff": (0, 0.0), "positive_kl_estimation": (False,), "reward_weights": (None,)},
    **{"artificial_epochs": (1, None), "formatting_sub_rewards": ([], None), "call_post_training": (None,)},
    **{"evaluate_refined_solution": (False,), "model_init_kwargs": (None,), "keep_columns": (None,)},
}
"""Keys without counterpart, with the values that are always so here."""


@dataclass(frozen=True)
class Meaning:
    """What a key comes to here."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Our settings by dotted name; none where nothing is to be set."""
    note: str | None = None
    """Why nothing is set, or what is not the same."""
    differs: bool = False
    """The value cannot be had here, so that a result may differ."""


def gone(key: str, value: Any) -> Meaning:
    if key in USUAL and value not in USUAL[key]:
        return Meaning(note=f"was {shown(value)}, but {GONE[key]}", differs=True)
    return Meaning(note=GONE[key])


def plain(name: str, value: Any) -> Meaning:
    row = rows().get(name)
    if value is None and row is not None and not row.is_optional:
        return Meaning(note="is empty, so the recipe's value stays")
    if value is None and name.startswith("trainer_args."):
        return Meaning(note="is empty, so the library's default stays")
    return Meaning({name: value})


def shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
