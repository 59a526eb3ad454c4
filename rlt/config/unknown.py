"""The sentence for a key that the schema does not have: its new name, or the nearest valid one."""

from __future__ import annotations

from difflib import SequenceMatcher

from rlt.config.renames import GONE, NOTES, RENAMED
from rlt.config.tree import rows
from rlt.config.trl_fields import GRPO_FIELDS, OWNED, SFT_FIELDS
from rlt.errors import ConfigError

_CLOSE_ENOUGH = 0.6
_SHORT = {"lr": "learning_rate", "epochs": "trainer.num_train_epochs", "dataset": "dataset_id_or_path"}
"""Names from elsewhere whose spelling is too far from ours."""
_LISTS_ALL = "`python train.py --help` lists the settings"


def unknown_key(key: str, where: str) -> ConfigError:
    """Return the error for an unknown key; `where` says where it stands."""
    old = key.removeprefix("model_args.")
    if old in RENAMED:
        note = f" ({NOTES[old]})" if old in NOTES else ""
        new = RENAMED[old]
        return ConfigError(f"`{key}` {where} is a key of the original release: it is `{new}` here{note}.")
    if (root := key.split(".", 1)[0]) in GONE:
        return ConfigError(f"`{key}` {where} is a key of the original release: it {GONE[root]}.")
    if key in SFT_FIELDS | GRPO_FIELDS and key not in OWNED:
        return ConfigError(
            f"`{key}` {where} is not a setting of ours but an argument of TRL: write `trainer_args.{key}`."
        )
    nearest = nearest_key(key)
    hint = f"did you mean `{nearest}`? ({_LISTS_ALL}.)" if nearest else f"{_LISTS_ALL}."
    return ConfigError(f"`{key}` {where} is not a setting: {hint}")


def nearest_key(key: str) -> str | None:
    """Return the valid dotted name most like a key, compared as a whole and by last parts, or None."""
    section, _, leaf = key.rpartition(".")
    if leaf in _SHORT:
        return _SHORT[leaf]

    def likeness(name: str) -> tuple[float, bool]:
        name_section, _, name_leaf = name.rpartition(".")
        whole = SequenceMatcher(None, key, name).ratio()
        # The last parts decide when the section was left out, or is right.
        leaves = SequenceMatcher(None, leaf, name_leaf).ratio() if section in ("", name_section) else 0.0
        return max(whole, leaves), name_section == section

    best = max(rows(), key=likeness)
    return best if likeness(best)[0] >= _CLOSE_ENOUGH else None
