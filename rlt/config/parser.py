"""The argument parser of our commands: a wrong argument is one sentence, as every error is."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rlt.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: `{self.prog} --help` lists what can be typed.")
