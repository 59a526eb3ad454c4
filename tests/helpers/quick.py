"""The quick selection (`pytest --quick`): no torch, and no other programs.

A file takes part if nothing that it imports at its top imports torch or another heavy library at *its* top.
A test that comes to one inside a function, or that starts a Python program, is skipped at that moment. So
the selection follows the code, and no list has to be kept. In the same way `--changed` takes the files that
import what differs from the last commit.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"accelerate", "datasets", "deepspeed", "matplotlib", "peft", "torch", "transformers", "trl", "vllm"}
SLOW = {"slow", "long", "vllm", "gpu", "network", "original"}
AT_TOP = re.compile(r"^(?:from ([\w.]+) import (\([^)]*\)|[^\n#]*)|import ([^\n#]*))", re.MULTILINE)


def is_light(path: Path) -> bool:
    """Return whether importing a file loads no heavy library."""
    return not any(name.partition(".")[0] in HEAVY for each in _reached(path) for name in _imported(each))


@cache
def changed(root: Path = ROOT) -> frozenset[Path]:
    """Return the files that differ from the last commit; none where git does not say."""
    command = ["git", "-C", str(root), "status", "--porcelain", "--no-renames", "--untracked-files=all", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return frozenset(root / line[3:] for line in done.stdout.split("\0") if line)


@cache
def reaching(files: Collection[Path]) -> frozenset[Path]:
    """Return the light test files that import one of some Python files.

    None if one of the files is something else: nobody can see who reads that.
    """
    if any(path.suffix != ".py" for path in files):
        return frozenset()
    tests = (ROOT / "tests").rglob("test_*.py")
    return frozenset(path for path in tests if _reached(path).intersection(files) and is_light(path))


def forbid() -> None:
    """Skip, from now on, whatever imports a heavy library or starts a Python process."""
    sys.addaudithook(_skip)


def sample(items: Sequence[pytest.Item], most: int) -> list[pytest.Item]:
    """Return at most so many cases of each test: the first, the last, and others evenly between them."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for found in cases.values():
        last, steps = len(found) - 1, max(most - 1, 1)
        kept |= {found[i * last // steps].nodeid for i in range(most)}
    return [item for item in items if item.nodeid in kept]


def _skip(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import" and (library := str(arguments[0]).partition(".")[0]) in HEAVY:
        pytest.skip(f"imports {library}: not a quick test", allow_module_level=True)
    if event == "subprocess.Popen" and any(end in str(arguments[:2]) for end in ("python", ".sh")):
        pytest.skip("starts a program: not a quick test", allow_module_level=True)


def _reached(path: Path) -> set[Path]:
    reached, new = {path}, [path]
    while new:
        found = {file for name in _imported(new.pop()) if (file := _file_of(name))}
        new += found - reached
        reached |= found
    return reached


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a file imports at its top, `from a import b` as a and as a.b."""
    return tuple(_names(path.read_text(encoding="utf-8")))


def _names(source: str) -> Iterator[str]:
    for module, members, plain in AT_TOP.findall(source):
        if module:
            yield module
            yield from (
                f"{module}.{name.split()[0]}" for name in members.strip("()").split(",") if name.strip()
            )
        yield from (name.split()[0] for name in plain.split(",") if name.strip())


@cache
def _file_of(name: str) -> Path | None:
    """Return the project's file behind a dotted name; None for members, packages and other libraries."""
    parts = name.split(".")
    folder = {"rlt": ROOT, "helpers": ROOT / "tests"}.get(parts[0])
    if folder is None and len(parts) == 1:  # a module beside a test, or a script
        return next(iter((ROOT / "tests").rglob(f"{name}.py")), None)
    file = (folder or ROOT / "scripts").joinpath(*parts).with_suffix(".py")
    return file if file.is_file() else None
