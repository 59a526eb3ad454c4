"""Keys of the original release: every one in the table fails with a sentence that helps."""

import pytest

from rlt.config.compose import compose
from rlt.config.renames import GONE, NOTES, RENAMED
from rlt.config.tree import rows
from rlt.config.trl_fields import GRPO_FIELDS, GRPO_OWNED, SFT_FIELDS
from rlt.errors import ConfigError


def test_tables_hold_together():
    assert not RENAMED.keys() & GONE.keys()
    assert NOTES.keys() <= RENAMED.keys()
    assert not (RENAMED.keys() | GONE.keys()) & {name for name in rows() if "." not in name}


@pytest.mark.parametrize("new", sorted(set(RENAMED.values())))
def test_every_new_name_exists(new):
    if new.startswith("trainer_args."):
        name = new.removeprefix("trainer_args.")
        assert name in SFT_FIELDS | GRPO_FIELDS
        assert name not in GRPO_OWNED
    else:
        assert rows()[new].section is None


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_old_key_fails_with_its_new_name(old):
    with pytest.raises(ConfigError, match="key of the original release") as caught:
        compose(["run_cfg=teacher_rl", f"{old}=1"])
    assert f"`{RENAMED[old]}` here" in str(caught.value)


@pytest.mark.parametrize("old", sorted(GONE))
def test_key_without_counterpart_fails_with_the_reason(old):
    with pytest.raises(ConfigError, match="key of the original release") as caught:
        compose(["run_cfg=teacher_rl", f"{old}=1"])
    assert GONE[old] in str(caught.value)


def test_keys_inside_the_originals_model_args():
    with pytest.raises(ConfigError, match=r"`model\.dtype` here"):
        compose(["run_cfg=teacher_rl", "model_args.torch_dtype=bfloat16"])
