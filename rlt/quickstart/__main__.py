"""`python -m rlt.quickstart`."""

import sys

from rlt.quickstart.main import main
from rlt.surroundings.leaving import run_command

if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
