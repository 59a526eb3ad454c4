"""Which values `model.attn_implementation` takes, and whether this machine's packages provide them.

Nothing is imported here but the metadata of packages, so it takes no time. What a model's own code can do,
and whether there is a GPU, is for `rlt/models/attention.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from packaging.specifiers import SpecifierSet

from rlt.config.judges import pays_likelihood, reads_student_model
from rlt.config.schema import Config, stage_of
from rlt.config.students import all_students
from rlt.config.teacher import teacher_name, teacher_revision
from rlt.errors import ConfigError

FLASH = "flash_attention_2"
BUILT_IN = ("eager", "sdpa")
"""Part of torch and transformers."""
HUB_EXAMPLE = "kernels-community/flash-attn2"
FLASH_VERSIONS = ">=2.3.3"
"""Of flash-attn: transformers ignores older ones (`is_flash_attn_2_available`)."""
KERNELS_VERSIONS = ">=0.16,<0.17"
"""Of kernels: transformers 5.17 ignores others (KERNELS_MIN_VERSION, KERNELS_MAX_VERSION)."""
_HUB = re.compile(r"kernels-community/[\w.-]+(@[\w.-]+)?")
"""Of other owners transformers demands `allow_all_kernels` besides."""


class LoadedModel(NamedTuple):
    """A model that a stage loads with `model.attn_implementation`."""

    name: str
    setting: str
    """Where its dtype is set."""
    dtype: str
    revision: str | None = None


def check_attention(config: Config, *, must_be_installed: bool = True) -> None:
    """Raise ConfigError for an attention that is unknown, not installed, or not for a model's dtype."""
    value = config.model.attn_implementation
    if value not in ("auto", *BUILT_IN) and not needs_gpu(value):
        raise ConfigError(
            f"`model.attn_implementation` must be auto, {', '.join(BUILT_IN)}, {FLASH}, or a kernel of the "
            f"Hub as kernels-community/NAME[@REVISION], e.g. {HUB_EXAMPLE}, got '{value}'."
        )
    if not needs_gpu(value):
        return
    for model in loaded_models(config):
        if model.dtype != "bfloat16":
            raise ConfigError(
                f"`model.attn_implementation={value}` needs {model.setting}=bfloat16, got {model.dtype}: "
                "take model.attn_implementation=sdpa."
            )
        if must_be_installed and (reason := not_provided(value)):
            raise ConfigError(f"`model.attn_implementation={value}` {reason}.")


def refuse_on_cpu(config: Config) -> None:
    """Raise ConfigError where models that compute on a CPU are to use an attention for GPUs."""
    value = config.model.attn_implementation
    if needs_gpu(value) and any(loaded_models(config)):
        raise ConfigError(
            f"`model.attn_implementation={value}` needs a GPU, and this run uses the CPU: take "
            "model.attn_implementation=auto."
        )


def needs_gpu(value: str) -> bool:
    """Whether a value names an attention that no CPU can compute."""
    return value == FLASH or is_from_hub(value)


def is_from_hub(value: str) -> bool:
    """Whether a value names attention kernels of the Hub."""
    return _HUB.fullmatch(value) is not None


def not_provided(value: str) -> str | None:
    """Return what a value needs that is not installed, with the remedies; None where nothing is missing."""
    if value == FLASH:
        # With the package kernels, transformers would quietly fetch kernels-community/flash-attn2 in its
        # place. Native code of others is only run where its name was typed.
        remedy = (
            "take model.attn_implementation=sdpa, or kernels from the Hub with "
            f"model.attn_implementation={HUB_EXAMPLE}"
        )
        return _missing("flash-attn", "flash_attn", FLASH_VERSIONS, remedy)
    if is_from_hub(value):
        remedy = (
            f"pip install 'kernels{KERNELS_VERSIONS}' (it fetches and runs native code of others), or take "
            "model.attn_implementation=sdpa"
        )
        return _missing("kernels", "kernels", KERNELS_VERSIONS, remedy)
    return None


def _missing(package: str, module: str, versions: str, remedy: str) -> str | None:
    """Return what is wrong with a package. Its name counts, since flash-attn-4 has the same module."""
    try:
        found = version(package) if find_spec(module) else None
    except PackageNotFoundError:
        found = None
    if found is None:
        return f"needs the package {package} ({versions}), which is not installed: {remedy}"
    if not SpecifierSet(versions).contains(found, prereleases=True):
        return f"needs the package {package} in a version {versions}, but {found} is installed: {remedy}"
    return None


def loaded_models(config: Config) -> Iterator[LoadedModel]:
    """Yield each model that a stage loads by itself. Servers load their own, and choose its attention."""
    stage = stage_of(config)
    is_served = stage.only_generates and config.generation.backend != "transformers"
    if stage.model is not None and not is_served and config.model_name_or_path:
        model = config.model
        yield LoadedModel(config.model_name_or_path, "model.dtype", model.dtype, model.revision)
    if pays_likelihood(config) and reads_student_model(config) and config.reward.placement != "server":
        for student in all_students(config):
            yield LoadedModel(student.model, "reward.dtype", config.reward.dtype)
    teacher = teacher_name(config) if stage.is_judged else None
    if teacher is not None and config.opd.placement != "server":
        yield LoadedModel(teacher, "opd.dtype", config.opd.dtype, teacher_revision(config))
