"""Imports of test files are executed when the first test of the file runs, so that collecting stays cheap.

`from rlt.trainers.rl import RLTrainer` at the top of a test file binds a `Later` while pytest collects, and
`resolve` binds the real object before the first test or fixture of the file runs. An import is executed at
once if it is of the standard library or of pytest, if a name of it is read while the module is executed
(decorators, base classes, defaults, constants), or if no code reads it (an imported fixture).
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

TESTS = Path(__file__).parents[1]
AT_ONCE = {*sys.stdlib_module_names, "pytest", "_pytest", "hypothesis"}


class Later:
    """The placeholder of an imported name until `resolve`. It can do nothing, so that early use fails."""

    def __init__(self, module: str, name: str | None) -> None:
        self.module, self.name = module, name

    def __repr__(self) -> str:
        return f"Later({self.module}, {self.name}): not imported before the first test of the file"

    def load(self) -> Any:
        """Return the real object; a module that waits itself is resolved first."""
        module = import_module(self.module)
        if self.name is None:
            return module
        resolve(module)
        return (
            getattr(module, self.name)
            if hasattr(module, self.name)
            else import_module(f"{self.module}.{self.name}")
        )


def install() -> None:
    """Let the import statements of test files and conftest files wait, until `uninstall`."""
    builtins.__import__ = _import


def uninstall() -> None:
    """Let all imports be executed at once again: everything is collected."""
    builtins.__import__ = _usual


def resolve(module: object) -> None:
    """Bind the real objects in a module whose imports wait."""
    for name, value in list(vars(module).items()):
        if isinstance(value, Later):
            setattr(module, name, value.load())


_usual = builtins.__import__


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    frame = sys._getframe(1)
    waits = level == 0 and name.partition(".")[0] not in AT_ONCE and _is_test_module(frame)
    if not waits or (not fromlist and "." in name):
        return _usual(name, globals, locals, fromlist, level)
    bound = set(_bound(frame))
    if bound & _read_at_import(frame.f_code) or bound - _read_anywhere(frame.f_code):
        return _usual(name, globals, locals, fromlist, level)
    if not fromlist:
        return Later(name, None)
    return SimpleNamespace(**{each: Later(name, each) for each in fromlist})


def _is_test_module(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    return (
        frame.f_code.co_name == "<module>"
        and TESTS in path.parents
        and path.name.startswith(("test_", "conftest."))
    )


def _bound(frame: FrameType) -> Iterator[str]:
    """Yield the names that the import statement at which a module stands binds, aliases as such."""
    steps = _instructions(frame.f_code)
    start = next(i for i, step in enumerate(steps) if step.offset == frame.f_lasti)
    for step in steps[start + 1 :]:
        if step.opname == "STORE_NAME":
            yield step.argval
        elif step.opname != "IMPORT_FROM":
            return


@cache
def _instructions(code: CodeType) -> list[dis.Instruction]:
    return list(dis.get_instructions(code))


@cache
def _read_at_import(code: CodeType) -> frozenset[str]:
    """Return the global names read while a module is executed, by the functions of it that it calls too."""
    names, inner = {*_loads(code)}, _inner(code)
    while (
        more := {name for each in inner if _runs_at_import(each, names) for name in _read_anywhere(each)}
        - names
    ):
        names |= more
    return frozenset(names)


def _runs_at_import(code: CodeType, read: set[str]) -> bool:
    is_class_body, is_comprehension = not code.co_flags & inspect.CO_OPTIMIZED, code.co_name[0] == "<"
    return is_class_body or is_comprehension or code.co_name in read


@cache
def _read_anywhere(code: CodeType) -> frozenset[str]:
    return frozenset({*_loads(code)}.union(*map(_read_anywhere, _inner(code))))


def _inner(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def _loads(code: CodeType) -> Iterator[str]:
    return (step.argval for step in _instructions(code) if step.opname in ("LOAD_NAME", "LOAD_GLOBAL"))
