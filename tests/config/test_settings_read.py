"""Every setting of the schema is read, from its own section, by code outside rlt/config: none is dead."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest
from helpers.sources import tree_of

import rlt.config.schema as schema
from rlt.config.schema import Config
from rlt.config.tree import rows

ROOT = Path(__file__).parents[2]
CLASSES = {name: kind for name, kind in vars(schema).items() if dataclasses.is_dataclass(kind)}
Sections = dict[str, type]
"""Variables that hold a section of the configuration, with its class."""


@cache
def reads() -> frozenset[tuple[type, str]]:
    """Return (class, field) for every field of a configuration that some code reads."""
    paths = [p for p in (ROOT / "rlt").rglob("*.py") if p.parent.name != "config"]
    files = [*sorted(paths), ROOT / "train.py"]
    return frozenset(pair for path in files for pair in reads_of(tree_of(path)))


def reads_of(tree: ast.AST) -> Iterator[tuple[type, str]]:
    attributes = annotated(n for n in ast.walk(tree) if isinstance(n, ast.AnnAssign))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for scope in [*functions, tree]:
        arguments = scope.args.args + scope.args.kwonlyargs if isinstance(scope, ast.FunctionDef) else []
        variables = annotated(arguments)
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign):
                variables |= assigned(node.targets[0], node.value, variables, attributes)
        for node in ast.walk(scope):
            if isinstance(node, ast.Attribute):
                owner = section_of(node.value, variables, attributes)
                if owner is not None:
                    yield owner, node.attr


def annotated(nodes) -> Sections:
    """Return the names that are annotated with a class of the schema."""
    found = {}
    for node in nodes:
        name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        kind = CLASSES.get(ast.unparse(node.annotation)) if node.annotation else None
        if kind is not None:
            found[name] = kind
    return found


def assigned(target: ast.expr, value: ast.expr, variables: Sections, attributes: Sections) -> Sections:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=True)
        return {k: v for t, e in pairs for k, v in assigned(t, e, variables, attributes).items()}
    kind = section_of(value, variables, attributes)
    return {target.id: kind} if isinstance(target, ast.Name) and kind else {}


def section_of(node: ast.expr, variables: Sections, attributes: Sections) -> type | None:
    """Return the class of the section that an expression is, or None."""
    if isinstance(node, ast.Name):
        return variables.get(node.id)
    if isinstance(node, ast.Call):
        known = {"compose": Config, "resolve": Config, "load_config": Config}
        return known.get(ast.unparse(node.func))
    if not isinstance(node, ast.Attribute):
        return None
    owner = section_of(node.value, variables, attributes)
    if owner is None:
        return attributes.get(node.attr)
    kind = get_type_hints(owner).get(node.attr)
    return kind if kind in CLASSES.values() else None


@cache
def interpolations() -> frozenset[str]:
    """Return the settings that shipped YAML files read, as `${name}`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "cfgs").rglob("*.yaml"))
    return frozenset(re.findall(r"\$\{([\w.]+)\}", text))


@pytest.mark.parametrize("name", [name for name in rows() if "." in name or rows()[name].section is None])
def test_setting_is_read(name):
    section, _, leaf = name.rpartition(".")
    owner = rows()[section].section if section else Config
    assert (owner, leaf) in reads() or name in interpolations(), f"nothing reads `{name}` of its section"


def test_a_field_of_the_same_name_elsewhere_does_not_count():
    source = (
        "def f(config: Config, other):\n    r, x = config.reward, other.seed\n    return r.dtype, other.top_p"
    )
    assert set(reads_of(ast.parse(source))) == {
        (Config, "reward"),
        (schema.RewardSettings, "dtype"),
    }
