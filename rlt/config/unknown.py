"""The sentence for a key that the schema does not have: its new name, or the nearest valid one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import SequenceMatcher, get_close_matches

from rlt.config.old_words import new_name
from rlt.config.renames import GONE, NOTES, RENAMED
from rlt.config.tree import rows
from rlt.config.trl_fields import GRPO_FIELDS, OWNED_SOMEWHERE, SFT_FIELDS, instead
from rlt.errors import ConfigError

_CLOSE_ENOUGH = 0.6
_SAME_LEAF = 0.99
_ALIASES = {
    "lr": "learning_rate",
    "temp": "temperature",
    **dict.fromkeys(("batch_size", "bs"), "train_batch_size"),
    **dict.fromkeys(("model_path", "model_name", "base_model"), "model_name_or_path"),
    **dict.fromkeys(("dataset", "dataset_name", "dataset_path", "data_path"), "dataset_id_or_path"),
    **dict.fromkeys(("eval_data", "eval_dataset", "eval_file"), "evaluation.path"),
    **dict.fromkeys(("out", "output", "save_dir"), "output_dir"),
    **dict.fromkeys(("max_new_tokens", "max_tokens"), "max_completion_length"),
    "n": "data.subset.n",
    "epochs": "trainer.num_train_epochs",
    "steps": "trainer.max_steps",
    "beta1": "trainer.adam_beta1",
    "beta2": "trainer.adam_beta2",
    "lora": "model.lora.rank",
    **dict.fromkeys(("kl_coef", "kl_coeff", "kl_beta"), "kl_penalty_reward_coeff` or `trainer.beta"),
    **dict.fromkeys(("enable_thinking", "thinking", "reasoning_effort"), "layout.chat_template_kwargs"),
    **dict.fromkeys(("prompt", "system_prompt"), "layout.teacher_prompt` or `layout.student_prompt"),
}
"""Names from elsewhere whose spelling is too far from this project's, or close to that of another setting."""
_LISTS_ALL = "`python train.py --help` lists the settings"


def unknown_key(key: str, where: str, *, sections: bool = False) -> ConfigError:
    """Return the error for an unknown key; `where` names its place, `sections` allows sections."""
    if (now := new_name(key)) != key:
        return ConfigError(f"`{key}` {where} is `{now}` now: write that.")
    old = key.removeprefix("model_args.")
    if old in RENAMED:
        note = f" ({NOTES[old]})" if old in NOTES else ""
        new = RENAMED[old]
        return ConfigError(f"`{key}` {where} is a key of the original release: it is `{new}` here{note}.")
    if (root := key.split(".", 1)[0]) in GONE:
        return ConfigError(f"`{key}` {where} is a key of the original release: it {GONE[root]}.")
    if key in OWNED_SOMEWHERE:
        return ConfigError(f"`{key}` {where} is not a setting: {instead(key, OWNED_SOMEWHERE)}.")
    if key in SFT_FIELDS | GRPO_FIELDS:
        return ConfigError(
            f"`{key}` {where} is an argument of TRL and not a setting of this project: "
            f"write `trainer_args.{key}`."
        )
    nearest = nearest_key(key, sections=sections)
    hint = f"did you mean `{nearest}`? ({_LISTS_ALL}.)" if nearest else f"{_LISTS_ALL}."
    return ConfigError(f"`{key}` {where} is not a setting: {hint}")


def unknown_keys(keys: Sequence[str], where: str) -> ConfigError:
    """Return one error for all unknown keys of a place: `on the command line`, or `in FILE`."""
    if len(keys) == 1:
        return unknown_key(keys[0], where)
    parts = [part for key in keys if (part := _in_short(key))]
    gone = [f"`{key}`" for key in keys if not _in_short(key)]
    if gone:
        parts.append(f"{', '.join(gone)} {'has' if len(gone) == 1 else 'have'} no use here")
    path = where.removeprefix("in ")
    remedy = _LISTS_ALL
    if path != where and any(_is_old(key) for key in keys):
        remedy = f"`python -m rlt.migrate {shlex.quote(path)}` writes the file in our words"
    return ConfigError(f"{len(keys)} keys {where} are not settings: {', '.join(parts)}. ({remedy}.)")


def _is_old(key: str) -> bool:
    return key.removeprefix("model_args.") in RENAMED or key.split(".", 1)[0] in GONE


def _in_short(key: str) -> str | None:
    """Return what an unknown key is here, in a few words; None for one that has no use any more."""
    if new := RENAMED.get(key.removeprefix("model_args.")):
        return f"`{key}` is `{new}`"
    if _is_old(key):
        return None
    if key not in OWNED_SOMEWHERE and key in SFT_FIELDS | GRPO_FIELDS:
        return f"`{key}` is `trainer_args.{key}`"
    nearest = None if key in OWNED_SOMEWHERE else nearest_key(key)
    return f"`{key}` is unknown" + (f" (`{nearest}`?)" if nearest else "")


def nearest_key(key: str, *, sections: bool = False) -> str | None:
    """Return the valid dotted name most like a key, compared as a whole and by last parts, or None."""
    section, _, leaf = key.lower().rpartition(".")
    if leaf in _ALIASES:  # unless the section is misspelt that has such a setting
        same = [name for name in rows() if section and name.endswith(f".{leaf}")]
        return next(iter(get_close_matches(key.lower(), same, n=1, cutoff=0.85)), _ALIASES[leaf])
    dicts = [name for name, row in rows().items() if row.is_open]
    near = get_close_matches(section, dicts, n=1, cutoff=0.8)
    if near and leaf not in OWNED_SOMEWHERE:
        return f"{near[0]}.{leaf}"

    def likeness(name: str) -> tuple[float, bool]:
        name_section, _, name_leaf = name.rpartition(".")
        whole = SequenceMatcher(None, key.lower(), name).ratio()
        if leaf == name_leaf:
            return max(whole, _SAME_LEAF), name_section == section
        # The last parts decide when the section is absent or right.
        leaves = SequenceMatcher(None, leaf, name_leaf).ratio() if section in ("", name_section) else 0.0
        return max(whole, leaves), name_section == section

    names = [name for name, row in rows().items() if sections or not row.section]
    best = max(names, key=likeness)
    return best if likeness(best)[0] >= _CLOSE_ENOUGH else None
