"""The names kept in the repository are those of the installed TRL."""

import dataclasses

from rlt.config.trl_fields import GRPO_FIELDS, GRPO_OWNED, LOSS_TYPES, SCHEDULERS, SFT_FIELDS, SFT_OWNED


def test_fields_are_those_of_the_installed_trl():
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    assert {f.name for f in dataclasses.fields(SFTConfig)} == SFT_FIELDS
    assert {f.name for f in dataclasses.fields(GRPOConfig)} == GRPO_FIELDS


def test_owned_fields_exist():
    assert SFT_OWNED.keys() <= SFT_FIELDS
    assert GRPO_OWNED.keys() <= GRPO_FIELDS


def test_names_of_schedules_and_losses():
    from transformers.trainer_utils import SchedulerType
    from trl.trainer.grpo_config import GRPOConfig

    assert set(SCHEDULERS) == {s.value for s in SchedulerType}
    doc = GRPOConfig.__doc__ or ""
    section = doc.split("loss_type (`str`")[1].split("mask_truncated_completions (")[0]
    assert all(f'- `"{name}"`' in section for name in LOSS_TYPES)
    assert section.count('- `"') == len(LOSS_TYPES)
