"""Errors that a user can act on. Each message is one sentence: what, where, the rule, the remedy.

`train.py` and the launchers print the message without a traceback and leave with the class's exit code.
Anything else that escapes is a bug of this project and keeps its traceback.
"""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


class RLTError(Exception):
    """Base of every error whose message is meant for the user."""

    exit_code = 1


class ConfigError(RLTError, ValueError):
    """A setting is unknown, out of bounds, or contradicts another one."""

    exit_code = 2


class DataError(RLTError, ValueError):
    """A dataset, a row or a text does not have the shape that the stage needs."""

    exit_code = 3


class ModelError(RLTError, ValueError):
    """A model or tokenizer cannot be loaded, or does not fit its role."""

    exit_code = 4


class NotFinite(ModelError):
    """A training has come to a loss, a gradient, a weight or a reward that is no finite number."""


class GenerationError(RLTError, RuntimeError):
    """The generation back end failed, did not answer in time, or answered with something unusable."""

    exit_code = 5


class TrainingStuck(RLTError, RuntimeError):
    """A training runs and has not moved for longer than anything of it should take."""

    exit_code = 7


class Paused(RLTError):
    """A run has saved a checkpoint and stopped before its end, as requested; not a failure.

    The exit code is that of sysexits' EX_TEMPFAIL, which tells a queue to start the job again.
    """

    exit_code = 75


class ServerLost(GenerationError):
    """A server broke off, or says that it is broken; when it comes back, the work can be repeated."""


class MachineLost(RLTError, RuntimeError):
    """Another machine of the run has ended or did not come, and this one cannot continue alone."""

    exit_code = 8


class CheckpointError(RLTError, RuntimeError):
    """A checkpoint cannot be written, or cannot be resumed from without changing the result."""

    exit_code = 6
