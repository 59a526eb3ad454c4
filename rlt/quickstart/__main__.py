"""`python -m rlt.quickstart`."""

import sys

from rlt.quickstart.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
