"""The argument parser of our commands: a wrong argument is one sentence, as every error is."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from rlt.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and leave; takes no abbreviations."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **how})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: `{self.prog} --help` lists what can be typed.")
