"""`python -m rlt.migrate FILE.yaml [OUT.yaml]`: a run file of SakanaAI/RLT in the words of this project.

A run file of an earlier version of this project is written in today's names.
OUT is run_cfg/NAME.yaml where it is not given, and is never written over. Comments in it list what was
dropped and why, and what does not exist here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rlt.config.original.run_file import read_run_file
from rlt.errors import ConfigError
from rlt.io import write_text
from rlt.migrate.own import Renewed, renew
from rlt.migrate.translate import Migrated, run_folder, translate
from rlt.migrate.write import command, not_written, parts, tried, wrapped
from rlt.parser import Parser
from rlt.surroundings.leaving import run_command

_COLUMNS = 80


def main(words: Sequence[str]) -> int:
    """Write the file, and say what became of its settings; return the exit code."""
    parser = Parser(prog="python -m rlt migrate", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.yaml", help="a run file of the original release")
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        metavar="OUT.yaml",
        help="in a folder run_cfg (default: run_cfg/NAME.yaml)",
    )
    typed = parser.parse_args(words)
    target: Path = typed.out or Path("run_cfg") / f"{typed.file.stem}.yaml"
    _check_target(target)
    if renewed := renew(typed.file):
        _write(target, renewed.text)
        sys.stdout.write(_renamed(renewed, target))
        return 0
    new = translate(read_run_file(typed.file))
    text = tried(new, typed.file, target)
    _write(target, text)
    sys.stdout.write(summary(new, target))
    return 0


def _renamed(new: Renewed, target: Path) -> str:
    names = [f"  {old} -> {name}" for old, name in new.names.items()]
    return "\n".join([f"{target}: {len(names)} names of an earlier version", *names]) + "\n"


def summary(new: Migrated, target: Path) -> str:
    """Return what was written, what was not, and what to type next."""
    counts = f"{len(new.settings)} settings, {len(new.dropped)} keys dropped"
    lines = [f"{target}: {new.stage}, {counts}"]
    for title, texts in parts(new):
        lines += [f"{title}:", *(line for text in texts for line in wrapped(text, "  ", _COLUMNS))]
    return "\n".join([*lines, "next:", f"  {command(new, target)} --dry-run"]) + "\n"


def _check_target(target: Path) -> None:
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{target} must end in .yaml, as a run file does.")
    if not run_folder(target):
        raise ConfigError(
            f"{target} must be in a folder named run_cfg, where launch.sh looks: take "
            f"{target.parent / 'run_cfg' / target.name}."
        )
    if target.exists() or target.is_symlink():
        raise ConfigError(
            f"{target} exists, and is not written over: name another file, as in `python -m rlt.migrate "
            f"FILE.yaml {target.with_stem(target.stem + '_new')}`."
        )


def _write(target: Path, text: str) -> None:
    """Write a new file, whole or not at all, and the folder it is in."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
    except OSError as error:
        raise not_written(target, error) from None


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
