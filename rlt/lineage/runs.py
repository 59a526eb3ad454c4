"""The run directories under some folders, and which of them wrote a given content.

Content decides, not the path that a run was given: directories may have been moved, renamed, or set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlt.errors import DataError
from rlt.io import Input, describe_input, files_below, folder_files
from rlt.rundir.run_json import RunJson
from rlt.rundir.run_record import NAME, REHEARSAL, read_run

_CHECKPOINTS = "checkpoint-*"


@dataclass(frozen=True)
class Run:
    """A run directory with its run.json."""

    directory: Path
    fields: RunJson

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What it read, by role."""
        return self.fields.get("inputs", {})

    def summary(self) -> dict[str, Any]:
        """Return what distinguishes this run from others."""
        named = ("stage", "status", "started", "ended", "seed", "command")
        code = {key: self.fields.get("code", {}).get(key) for key in ("package", "commit", "dirty")}
        return {
            "directory": str(self.directory),
            **{key: self.fields.get(key) for key in named},
            "code": code,
        }


@dataclass(frozen=True)
class Origin:
    """Where a content lies, and the run that wrote it, or why none is known."""

    path: Path | None
    run: Run | None
    end: str | None
    """One sentence where the chain ends."""


class Runs:
    """All runs under some folders."""

    def __init__(self, roots: Sequence[Path]) -> None:
        for root in roots:
            if not root.is_dir():
                raise DataError(f"{root} is not a folder: name the folders that hold your run directories")
        self._roots = roots
        self._described: dict[Path, Input] = {}

    @cached_property
    def all(self) -> list[Run]:
        """Every run, by its directory's name; rehearsals are none."""
        files = (path for root in self._roots for path in files_below(root))
        found = sorted({path.parent for path in files if path.name == NAME})
        found = [folder for folder in found if folder.parent.name != REHEARSAL]
        return [Run(folder, read_run(folder)) for folder in found]

    @property
    def where(self) -> str:
        """The folders, for messages."""
        return ", ".join(map(str, self._roots))

    def origin(self, described: Input) -> Origin:
        """Return where the content of an input comes from; `described` as in run.json."""
        if hub := described.get("hub"):
            version = described.get("commit") or described.get("revision")
            return Origin(None, None, f"{hub}{f' at {version}' if version else ''} is from the Hub.")
        recorded = Path(str(described.get("folder") or described.get("file")))
        found = next(self._holding(described, recorded), None)
        version = f"sha256 {described['sha256'][:12]}"
        if found is None:
            what = "holds something else by now" if recorded.exists() else "does not exist any more"
            return Origin(
                None,
                None,
                f"{recorded} {what}, and no run under {self.where} holds what was read ({version}).",
            )
        run = next(
            (r for r in self.all if r.directory.resolve() in (found.resolve(), *found.resolve().parents)),
            None,
        )
        end = None if run else f"{found} ({version}) was written by no run under {self.where}."
        return Origin(found, run, end)

    def readers(self, sha256: str) -> Iterator[tuple[Run, str]]:
        """Yield each run that read a content, with the role it had there."""
        for run in self.all:
            for role, described in run.inputs.items():
                if described.get("sha256") == sha256:
                    yield run, role

    def digest(self, path: Path) -> str:
        """Return the content hash of a file or a folder."""
        return str(self._describe(path)["sha256"])

    def _holding(self, described: Input, recorded: Path) -> Iterator[Path]:
        """Yield the paths that hold a content: first the recorded one, then any in a run directory."""
        is_file = "file" in described
        candidates = [recorded]
        for run in self.all:
            if is_file:
                candidates += sorted(path for path in run.directory.iterdir() if path.is_file())
            else:
                candidates += [run.directory, *sorted(run.directory.glob(_CHECKPOINTS))]
        for path in candidates:
            if path.is_file() != is_file or not path.exists() or _size(path) != described["bytes"]:
                continue
            if self.digest(path) == described["sha256"]:
                yield path

    def _describe(self, path: Path) -> Input:
        if path not in self._described:
            self._described[path] = describe_input(str(path))
        return self._described[path]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in folder_files(path))
