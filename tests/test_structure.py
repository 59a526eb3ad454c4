"""The shape of the package: imports point down, and heavy libraries stay behind their fences."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("errors",),
    ("records",),
    ("config",),
    ("formats", "models"),
    ("data", "rewards", "generation"),
    ("trainers", "reporting"),
    ("stages", "quickstart", "launch"),
)
LEVEL = {area: level for level, areas in enumerate(LAYERS) for area in areas}
SOURCES = sorted((ROOT / "rlt").rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Yield the dotted names that a module imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def area(path: Path) -> str:
    return path.relative_to(ROOT / "rlt").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if area(path) == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "rlt" or len(parts) == 1 or parts[1] == area(path):
            continue
        assert LEVEL[parts[1]] < LEVEL[area(path)], f"{path.relative_to(ROOT)} imports {name}"


def test_every_area_has_a_layer():
    assert {area(path) for path in SOURCES} - {"__init__"} == LEVEL.keys()


FENCES = {
    "trl": ("trainers/", "models/frozen.py"),
    "deepspeed": ("models/",),
    "vllm": ("generation/nccl_sync.py",),
    "peft": ("trainers/",),
    "wandb": (),
}


@pytest.mark.parametrize("library", FENCES)
def test_heavy_libraries_stay_behind_their_fences(library):
    for path in SOURCES:
        place = path.relative_to(ROOT / "rlt").as_posix()
        if not place.startswith(FENCES[library] or ("-",)):
            assert library not in {name.split(".")[0] for name in imports(path)}, place


@pytest.mark.parametrize("library", ["vllm", "deepspeed", "wandb", "peft"])
def test_optional_libraries_are_imported_inside_functions(library):
    for path in [*SOURCES, ROOT / "train.py"]:
        top = [name.split(".")[0] for name in imports(path, top_level_only=True)]
        assert library not in top, f"{path.relative_to(ROOT)} imports {library} when it is imported"


def test_hydra_and_omegaconf_stay_in_the_configuration():
    for path in SOURCES:
        roots = {name.split(".")[0] for name in imports(path)}
        assert area(path) == "config" or not roots & {"hydra", "omegaconf"}, path


def test_configuration_imports_nothing_heavy():
    for path in SOURCES:
        if area(path) in ("errors", "records", "config"):
            roots = {name.split(".")[0] for name in imports(path)}
            assert not roots & {"torch", "transformers", "trl", "datasets", "accelerate", "numpy"}, path


def test_nothing_prints():
    for path in SOURCES:
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path
