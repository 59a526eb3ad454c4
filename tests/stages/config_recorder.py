"""Which settings of a configuration some code reads, by dotted name, with the files that read them.

The classes of the schema get a `__getattribute__` that looks at who asks. Not a read: what walks over all
settings (copying, comparing, saving, bounds). Copies made by `dataclasses.replace` are followed: a field that
was replaced is the code's own and counts no more.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from rlt.config import schema
from rlt.config.tree import rows

PROJECT = Path(__file__).parents[2]
CLASSES = {row.section for row in rows().values() if row.section} | {schema.Config}
_FIELDS = {kind: {f.name for f in dataclasses.fields(kind)} for kind in CLASSES if kind}
_WALKERS = {f"rlt/config/{name}.py" for name in ("tree", "save", "changes", "resolve", "bounds")}
_COPIERS = ("replace", "_replace")  # from Python 3.13 on the first calls the second, which does the work
_OUTSIDE = ("dataclasses.py", "copy.py", "<string>")


class Recorder:
    """What has been read since it was made."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = {}
        """Setting -> the files, relative to the project, that read it."""
        self._sections: dict[int, str] = {}
        self._own: dict[int, set[str]] = {}
        """Of a copy by `replace`, the fields that are still the user's."""
        self._copied: dict[FrameType, set[str]] = {}
        self._kept: list[Any] = []  # so that no id is used twice

    def saw(self, owner: Any, name: str, value: Any, frame: FrameType) -> None:
        """Take down one access."""
        file = frame.f_code.co_filename
        is_copying = file.endswith("dataclasses.py") and frame.f_code.co_name in _COPIERS
        if is_copying:
            self._copied.setdefault(frame, set()).add(name)
        prefix = "" if isinstance(owner, schema.Config) else self._sections.get(id(owner))
        if prefix is None or name not in self._own.get(id(owner), {name}):
            return
        full = f"{prefix}{name}"
        if rows()[full].section is not None:
            self._sections[id(value)] = f"{full}."
            self._kept.append(value)
        elif not file.endswith(_OUTSIDE) and file.startswith(str(PROJECT)):
            path = str(Path(file).relative_to(PROJECT))
            if path not in _WALKERS and not path.startswith(("tests/", ".venv/")):
                self.found.setdefault(full, set()).add(path)

    def made(self, new: Any, frame: FrameType) -> None:
        """Take down that an object was made, perhaps as a copy of a known one."""
        if frame not in self._copied:
            return
        old = frame.f_locals[frame.f_code.co_varnames[0]]  # the first argument: `obj`, from 3.13 on `self`
        own = self._copied.pop(frame) & self._own.get(id(old), _FIELDS[type(old)])
        self._own[id(new)] = own
        if id(old) in self._sections:
            self._sections[id(new)] = self._sections[id(old)]
        self._kept.append(new)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record while the block runs."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for kind, names in _FIELDS.items():
            patch.setattr(kind, "__getattribute__", _getter(recorder, names), raising=False)
            patch.setattr(kind, "__init__", _maker(recorder, kind.__init__))
        yield recorder


def _getter(recorder: Recorder, names: set[str]) -> Any:
    def __getattribute__(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name in names:
            recorder.saw(self, name, value, sys._getframe(1))
        return value

    return __getattribute__


def _maker(recorder: Recorder, init: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        recorder.made(self, sys._getframe(1))

    return __init__
