"""What differs from SakanaAI/RLT: `python -m rlt.differences [--against DIR] [--json | --markdown]`.

Each row says what is so there and here, whether that is a name alone, deliberate or not known, and what to
type for the original's way. `python -m rlt.trainers.recipe_diff` compares with TRL's defaults instead.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rlt.config.original.prompt import COMMIT, REPOSITORY
from rlt.differences.compare import differences, prompt_of, unlike_release
from rlt.differences.text import COLUMNS, markdown, text
from rlt.errors import ConfigError
from rlt.parser import Parser
from rlt.surroundings.leaving import run_command


def main(words: Sequence[str]) -> int:
    """Print the rows; return the exit code."""
    parser = Parser(prog="python -m rlt differences", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with a checkout of SakanaAI/RLT")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON: a list, one object a row")
    form.add_argument("--markdown", action="store_true", help="print docs/differences.md")
    typed = parser.parse_args(words)
    if typed.against is not None:
        _require_checkout(typed.against)
    rows = differences(typed.against)
    about = "" if typed.against is None else _about(typed.against)
    if typed.json:
        sys.stdout.write(
            json.dumps([dataclasses.asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"
        )
    else:
        sys.stdout.write(markdown(rows) if typed.markdown else text(rows) + about)
    return 0


def _require_checkout(folder: Path) -> None:
    if not (folder / "cfgs" / "run_cfg" / "teacher_rlt.yaml").is_file():
        raise ConfigError(
            f"--against {folder} is no checkout of SakanaAI/RLT, as it has no cfgs/run_cfg/teacher_rlt.yaml: "
            f"run `git clone {REPOSITORY} DIR && git -C DIR checkout {COMMIT}` and give DIR."
        )


def _about(checkout: Path) -> str:
    """Return what a checkout is, beside the release that our facts are of."""
    other = unlike_release(checkout)
    lines = [f"This checkout, beside {COMMIT}"]
    lines += textwrap.wrap(prompt_of(checkout), COLUMNS, initial_indent="  ", subsequent_indent="  ")
    if not other:
        lines.append("  Its run files come to the same values.")
    lines += [f"  {run_file}.yaml, {key}: {there} there, {own} in it" for run_file, key, there, own in other]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
