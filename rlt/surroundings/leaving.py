"""How a command ends: an error is one sentence, a closed pipe is none, and Ctrl-C is exit code 130."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

from rlt.errors import RLTError

Main = Callable[[Sequence[str]], int]

INTERRUPTED = 130
_CLOSED_PIPE = 141
"""128 + SIGPIPE, the code of every program whose reader has left."""
_OUTPUT_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EBADF}
_FILE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Those that only a write meets, so that the file named was to be written."""


def run_command(main: Main, words: Sequence[str]) -> int:
    """Return a command's exit code, with its output written and its error printed."""
    try:
        code = main(words)
        sys.stdout.flush()  # at exit Python could only print a traceback of its own
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        return _CLOSED_PIPE
    except OSError as error:
        if error.filename is not None and error.errno in _FILE_ERRORS:
            sys.stderr.write(
                f"error: {error.filename} cannot be written ({error.strerror}): make room there, or give "
                "another folder, and type the same command again\n"
            )
            return 1
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            raise
        _drop_output()
        sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
        return 1
    return code


def _drop_output() -> None:
    """Let the flush at exit succeed: what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
