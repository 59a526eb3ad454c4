"""Every setting of the schema is read by some code outside rlt/config, so that none is dead."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from rlt.config.schema import Config
from rlt.config.tree import rows

ROOT = Path(__file__).parents[2]


@cache
def sources() -> str:
    paths = [p for p in (ROOT / "rlt").rglob("*.py") if p.parent.name != "config"]
    return "\n".join(p.read_text(encoding="utf-8") for p in [*sorted(paths), ROOT / "train.py"])


@cache
def attributes() -> frozenset[str]:
    return frozenset(node.attr for node in ast.walk(ast.parse(sources())) if isinstance(node, ast.Attribute))


@cache
def interpolations() -> frozenset[str]:
    """Return the settings that shipped YAML files read, as `${name}`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "cfgs").rglob("*.yaml"))
    return frozenset(re.findall(r"\$\{([\w.]+)\}", text))


def owners() -> dict[str, set[type]]:
    """Return, for each last part of a name, the dataclasses that have such a field."""
    table = rows()
    found: dict[str, set[type]] = {}
    for name in table:
        section, _, leaf = name.rpartition(".")
        found.setdefault(leaf, set()).add(table[section].section if section else Config)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("name", [name for name, row in rows().items() if row.section is None])
def test_setting_is_read(name):
    section, _, leaf = name.rpartition(".")
    assert leaf in attributes() or name in interpolations(), f"nothing reads `{name}`"
    if len(owners()[leaf]) > 1:
        # Several sections have a field of this name: the section must stand before it.
        last = section.rsplit(".", 1)[-1].removeprefix("eval_") or "config"
        assert re.search(rf"\b\w*{last}\.{leaf}\b", sources()), f"nothing reads `{last}.{leaf}`"


def test_names_that_several_sections_share_are_few():
    shared = Counter({leaf: len(classes) for leaf, classes in owners().items() if len(classes) > 1})
    assert set(shared) <= {"dtype", "revision", "seed", "num_generations"}
