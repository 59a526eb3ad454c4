"""`accelerate launch`, with the training's own exit code and without a stack trace of the launcher.

Takes the same arguments. accelerate itself ends with 1 whatever the training ended with.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    """Return the exit code of the first training process that failed, 0 if none did."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args())
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
    except subprocess.CalledProcessError as error:
        code = error.returncode
    except SignalException as error:
        code = -int(error.sigval)
    else:
        code = 0
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
