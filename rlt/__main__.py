"""`python -m rlt`: every command with an example; `python -m rlt COMMAND …` runs one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rlt.cli.verbs import command, page
from rlt.surroundings.leaving import run_command


def main(words: Sequence[str]) -> int:
    """Run a command, or list all; return the exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(page())
        return 0
    return command(words[0])(words[1:])


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
