"""The names, types and choices kept in the repository are those of the installed TRL."""

import dataclasses
import re
from enum import Enum
from inspect import cleandoc
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from rlt.config.tree import fits
from rlt.config.trl_fields import (
    CHOICES,
    GRPO_FIELDS,
    GRPO_OWNED,
    LOSS_TYPES,
    SCHEDULERS,
    SFT_FIELDS,
    SFT_OWNED,
)


def trl_class(name: str) -> type:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.sft_config import SFTConfig

    return {"SFTConfig": SFTConfig, "GRPOConfig": GRPOConfig}[name]


def as_yaml(kind: Any) -> set[Any]:
    """Return what a type's values look like in YAML: enums are texts, classes cannot be written."""
    if get_origin(kind) in (Union, UnionType):
        return set().union(*(as_yaml(k) for k in get_args(kind)))
    if get_origin(kind) is list:
        return {list[next(iter(as_yaml(get_args(kind)[0])))]}
    if get_origin(kind) is dict:
        return {dict}
    if get_origin(kind) is Literal:
        return {type(value) for value in get_args(kind)}
    if issubclass(kind, Enum):
        return {str}
    return {kind} & {bool, int, float, str, dict, NoneType}


@pytest.mark.parametrize(("name", "ours"), [("SFTConfig", SFT_FIELDS), ("GRPOConfig", GRPO_FIELDS)])
def test_fields_and_types_are_those_of_the_installed_trl(name, ours):
    theirs = {field: as_yaml(kind) for field, kind in get_type_hints(trl_class(name)).items()}
    fields = {f.name for f in dataclasses.fields(trl_class(name))}
    assert fields == ours.keys()
    assert {f: as_yaml(ours[f]) for f in fields} == {f: theirs[f] for f in fields}


def test_owned_fields_exist():
    assert SFT_OWNED.keys() <= SFT_FIELDS.keys()
    assert GRPO_OWNED.keys() <= GRPO_FIELDS.keys()


@pytest.mark.parametrize(("name", "owned"), [("SFTConfig", SFT_OWNED), ("GRPOConfig", GRPO_OWNED)])
def test_choices_are_those_of_the_installed_trl(name, owned):
    hints = get_type_hints(trl_class(name))
    for field in dataclasses.fields(trl_class(name)):
        enums = [k for k in get_args(hints[field.name]) if isinstance(k, type) and issubclass(k, Enum)]
        allowed = set(field.metadata.get("choices", ())) | {e.value for enum in enums for e in enum}
        if allowed and field.name not in owned:
            assert set(CHOICES[field.name]) == allowed, field.name


def documentation(name: str) -> str:
    """Return what GRPOConfig's docstring says of a field: up to the next one, at whatever depth they stand.

    Python 3.13 takes the indentation out of docstrings, and earlier ones do not.
    """
    doc = cleandoc(trl_class("GRPOConfig").__doc__ or "")
    match = re.search(rf"^( *){name} \(.*?(?=^\1\w|\Z)", doc, re.MULTILINE | re.DOTALL)
    assert match, name
    return match[0]


def test_choices_without_a_list_in_trl_are_in_its_documentation():
    for name in ("importance_sampling_level", "vllm_importance_sampling_mode", "multi_objective_aggregation"):
        assert all(f'"{choice}"' in documentation(name) for choice in CHOICES[name])
        assert documentation(name).count(" (`") == 1  # of this field alone


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (1.0, int, False),
        (None, int | None, True),
        ([1, 2.5], list[float], True),
        (["a", 1], list[str], False),
        ({}, dict | str, True),
    ],
)
def test_values_fit_types(value, kind, expected):
    assert fits(value, kind) is expected


def test_names_of_schedules_and_losses():
    from transformers.trainer_utils import SchedulerType

    assert set(SCHEDULERS) == {s.value for s in SchedulerType}
    section = documentation("loss_type")
    assert all(f'- `"{name}"`' in section for name in LOSS_TYPES)
    assert section.count('- `"') == len(LOSS_TYPES)
